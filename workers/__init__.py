"""The processes: Celery app, signals, logging and the command line."""

import gc

# Before anything is imported: the collector takes a seventh of each process's start, too (docs/decisions/speed.md).
COLLECT_AFTER_OBJECTS = 20_000
gc.set_threshold(COLLECT_AFTER_OBJECTS, *gc.get_threshold()[1:])
