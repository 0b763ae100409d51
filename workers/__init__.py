"""The processes: Celery app, signals, logging and the command line."""

import gc

# A drain makes some dozens of small objects a row, all of them gone soon and hardly any in a cycle: at Python's own threshold
# the collector takes a fifth of its time (bench/results/notifications.txt, docs/decisions/speed.md). It takes a seventh of each
# process's start, too, and finds nothing: hence here, before anything is imported.
COLLECT_AFTER_OBJECTS = 20_000
gc.set_threshold(COLLECT_AFTER_OBJECTS, *gc.get_threshold()[1:])
