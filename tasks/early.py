"""Early nudges: one that came before its row's commit has found nothing, so for two seconds a thread looks for the row."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from celery import Task
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from tasks.jobs import STARTED_BY, WORKER
from tasks.shutdown import stop_requested

SECONDS, EACH_SECONDS = 2.0, 0.2
# Threads of a process for each task; the sweep finds what more would look for.
MOST = 100

_until: dict[tuple[object, ...], float] = {}
_lock = threading.Lock()


def is_direct(task: "Task[..., str]") -> bool:
    """Return True if the running task's message came from the API: from neither beat, an operator nor a worker."""
    return not task.request.called_directly and STARTED_BY not in (task.request.headers or {})


def look_again(task: "Task[..., str]", come: Callable[[], object], *arguments: int, each: float = EACH_SECONDS) -> None:
    """Send the task anew once `come`, asked `each` so many seconds, returns True. This process's other tasks wait for it no
    longer than for a query.
    """
    key = (task.name, *arguments)
    with _lock:
        is_new = key not in _until
        if is_new and sum(name == task.name for name, *_ in _until) >= MOST:
            return
        _until[key] = time.monotonic() + SECONDS
        if is_new:
            try:
                threading.Thread(target=_look, args=(task, come, arguments, each), daemon=True).start()
            except RuntimeError:  # the system has no thread left: the sweep does it
                del _until[key]


def _look(task: "Task[..., str]", come: Callable[[], object], arguments: tuple[int, ...], each: float) -> None:
    key, until = (task.name, *arguments), 0.0
    try:
        with suppress(SQLAlchemyError, RedisError, OperationalError):  # the sweep does it
            while (until := _until[key]) > time.monotonic() and not stop_requested():
                time.sleep(each)
                if come():
                    task.apply_async(arguments, expires=60, headers={STARTED_BY: WORKER})
                    break
    finally:
        with _lock:
            asked_meanwhile = _until.pop(key) > until
    if asked_meanwhile:
        look_again(task, come, *arguments, each=each)
