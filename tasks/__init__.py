"""The jobs, a package each: `task.py` holds the Celery entry points, the rest is plain Python."""
