"""Measured comparisons: ratios between things run on one machine in one run."""
