"""Benchmarks: `python -m bench.<topic>` prints one table and writes bench/results."""
