"""The processes: Celery app, signals, logging and the command line."""
