"""Alembic's scripts for the worker-owned tables."""
