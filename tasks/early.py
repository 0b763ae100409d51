"""Early nudges: one that came before its row's commit has found nothing, so for two seconds a thread looks for the row."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from celery import Task
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from tasks.jobs import AGAIN, STARTED_BY, WORKER
from tasks.shutdown import stop_requested

SECONDS, EACH_SECONDS = 2.0, 0.2
# Threads of a process; the sweep finds what more would look for.
MOST = 100

_until: dict[tuple[object, ...], float] = {}


def is_direct(task: "Task[..., str]") -> bool:
    """Return True if the running task's message came from the API: from neither beat, an operator nor a worker."""
    return not task.request.called_directly and STARTED_BY not in (task.request.headers or {})


def is_repeat(task: "Task[..., str]") -> bool:
    """Return True if the running task's message is the gateway's repeat of one, which may find its work done."""
    return (task.request.id or "").endswith(AGAIN)


def look_again(task: "Task[..., str]", come: Callable[[], bool], *arguments: int) -> None:
    """Send the task anew once `come` returns True. This process's other tasks wait for it no longer than for a query."""
    key = (task.name, *arguments)
    is_new = key not in _until
    if not is_new or len(_until) < MOST:
        _until[key] = time.monotonic() + SECONDS
    if is_new and key in _until:
        threading.Thread(target=_look, args=(key, task, come, arguments), daemon=True).start()


def _look(key: tuple[object, ...], task: "Task[..., str]", come: Callable[[], bool], arguments: tuple[int, ...]) -> None:
    with suppress(SQLAlchemyError, RedisError, OperationalError):  # the sweep does it
        while time.monotonic() < _until[key] and not stop_requested():
            if come():
                task.apply_async(arguments, expires=60, headers={STARTED_BY: WORKER})
                break
            time.sleep(EACH_SECONDS)
    del _until[key]
