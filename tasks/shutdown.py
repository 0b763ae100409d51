"""The stop request of a worker, seen by every child of its prefork pool."""

import mmap

# Anonymous shared memory made before the pool forks: the parent writes it, all children read it. Celery tells only the
# parent that a shutdown has begun, and waits for running tasks; long ones look here between steps and return early.
_flag = mmap.mmap(-1, 1)


def request_stop() -> None:
    """Ask all running tasks of this worker to return at their next safe point."""
    _flag[0] = 1


def stop_requested() -> bool:
    """Return True once the worker has been asked to stop."""
    return _flag[0] == 1


def forget() -> None:
    """Clear the request: a worker that starts has not been asked to stop."""
    _flag[0] = 0
