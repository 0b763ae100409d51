"""What the worker processes tell the picture, at Celery's signals: that they live, and how their tasks went."""

import time
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Task

from tasks import counters
from workers.messages.read import SENT_AT
from workers.operations.fleet import Heartbeat
from workers.operations.redis import client

_heartbeat: list[Heartbeat] = []
# When this process's task began; a pool's child runs one at a time.
_began: dict[str, float] = {}
_OUTCOMES = {"SUCCESS": "succeeded", "FAILURE": "failed", "RETRY": "retried"}
KILLED = "killed"
OUTCOMES = (*_OUTCOMES.values(), KILLED)


def stamp(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Write into a message when it was sent: Celery does not."""
    if headers is not None:
        headers.setdefault(SENT_AT, time.time())


def start(sender: Any, **_: Any) -> None:
    """Remember what the heartbeat tells of this worker, and where the counters go."""
    counters.flush_to(client)
    _heartbeat[:] = [Heartbeat(sender)]


def beat(**_: Any) -> None:
    for heartbeat in _heartbeat:
        heartbeat.beat()


def leave(**_: Any) -> None:
    for heartbeat in _heartbeat:
        heartbeat.leave()


def end(**_: Any) -> None:
    for heartbeat in _heartbeat:
        heartbeat.end()


def task_starts(task_id: str, task: Task[Any, Any], **_: Any) -> None:
    _began[task_id] = time.monotonic()
    sent_at = (getattr(task.request, "headers", None) or {}).get(SENT_AT)
    about = task.request.delivery_info or {}
    if isinstance(sent_at, int | float) and "routing_key" in about and not about.get("redelivered"):
        counters.observe(counters.QUEUED_SECONDS, str(about["routing_key"]), seconds=max(time.time() - sent_at, 0.0))


def task_ends(task_id: str, task: Task[Any, Any], state: str | None = None, **_: Any) -> None:
    began = _began.pop(task_id, None)
    if began is not None:
        counters.observe(counters.TASK_SECONDS, task.name, seconds=time.monotonic() - began)
    counters.add(counters.TASKS, task.name, _OUTCOMES.get(state or "", "other"))
    counters.flush(at_once=True)


def task_killed(sender: Task[Any, Any], exception: BaseException, **_: Any) -> None:
    """Count a task whose process was killed: no one else is left to say so but the worker's main process."""
    if isinstance(exception, TimeLimitExceeded | WorkerLostError):
        counters.add(counters.TASKS, sender.name, KILLED)
        counters.flush(at_once=True)
