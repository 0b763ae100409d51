"""Handlers of Celery's signals that keep each worker's heartbeat and count its tasks, for the operators' page."""

import threading
import time
from itertools import product
from typing import Any
from uuid import uuid4

import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import Task
from celery.signals import heartbeat_sent, worker_shutdown, worker_shutting_down
from redis.exceptions import RedisError

from tasks import counters
from tasks.facts import Alert, Counter, Histogram, Row
from tasks.jobs import TASKS
from workers.messages.read import SENT_AT, waited
from workers.operations import fleet
from workers.operations.reader import client

log = structlog.get_logger(__name__)

_OUTCOMES = {"SUCCESS": "succeeded", "FAILURE": "failed", "RETRY": "retried"}
KILLED = "killed"
MOST_RUNNING = 20
MILLISECONDS_TO_HOURS = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 1800.0, 10800.0)

RUNS = Counter(
    "tasks", "Task runs by how they ended; killed: time limit or death of the process.", ("task", "outcome"),
    Alert(
        "ChatWorkersTasksFailing", "warning", "{task}: {value} runs {outcome} within 15 minutes",
        above=2, minutes=0, where={"outcome": ("failed", KILLED)}, window=15,
    ),
    known=tuple(product(TASKS, (*_OUTCOMES.values(), KILLED))),
)  # fmt: skip
EXPIRED = Counter(
    "tasks_expired", "Messages that no worker took in time, so that their task was not run.", ("task",),
    Alert(
        "ChatWorkersTasksExpiring", "warning", "{task}: {value} messages expired within 15 minutes",
        above=2, minutes=0, window=15,
    ),
    known=tuple((task,) for task in TASKS),
)  # fmt: skip
RUN_SECONDS = Histogram("task_seconds", "Runtime of tasks.", ("task",), MILLISECONDS_TO_HOURS)
QUEUED_SECONDS = Histogram(
    "task_queued_seconds", "From a message's sending to its task's start, for senders that say when.", ("queue",),
    MILLISECONDS_TO_HOURS,
)  # fmt: skip
COUNTED = (RUNS, EXPIRED, RUN_SECONDS, QUEUED_SECONDS)

# When this process's task began; a pool's child runs one at a time.
_began: dict[str, float] = {}


class Heartbeat:
    """A worker's announcement of itself, at Celery's own heartbeats; each minute some worker also samples the counters."""

    def __init__(self, controller: Any) -> None:
        """`controller` is Celery's WorkController."""
        self._controller = controller
        self._since = time.monotonic()
        self._id = uuid4().hex
        self._other_until = 0.0
        self._leaving = False
        self._writing = threading.Lock()

    def beat(self, **_: Any) -> None:
        """Announce this worker, unless it is leaving. A Redis that is away is Celery's to report."""
        try:
            with self._writing:
                if not self._leaving:
                    now = time.monotonic()
                    about = {**self.about(), "worker_name_shared": now < self._other_until}
                    before = fleet.announce(client(), self._controller.hostname, about)
                    # A worker of this name that was killed and started anew is heard of once, two that live again and again.
                    if before.get("id", self._id) != self._id and now - self._since > fleet.ALIVE_SECONDS:
                        self._other_until = now + fleet.ALIVE_SECONDS
                    counters.sample()
        except RedisError as error:
            log.debug("heartbeat not written", reason=str(error))

    def leave(self, **_: Any) -> None:
        """Begin to take this worker's name away: it takes no more tasks, and Celery's heartbeats end before its tasks do.

        Called by the handler of SIGTERM, which may have cut into a heartbeat: another thread talks to Redis, after that one.
        """
        threading.Thread(target=self.end, name="leaving", daemon=True).start()

    def end(self, **_: Any) -> None:
        """Take this worker's name away: it was asked to stop."""
        self._leaving = True
        try:
            with self._writing:
                fleet.leave(client(), self._controller.hostname)
        except RedisError as error:
            log.debug("heartbeat not taken away", reason=str(error))

    def about(self) -> Row:
        """Return what is announced: how many tasks run, and the MOST_RUNNING oldest of them."""
        from celery.worker.state import active_requests  # it sets up a worker's own state, so it is for workers alone

        now = time.time()
        running = [
            {"task": request.name, "id": request.id, "seconds": max(round(now - (request.time_start or now), 1), 0.0)}
            for request in list(active_requests)
        ]
        running.sort(key=lambda task: -task["seconds"])
        return {
            "id": self._id,
            "version": fleet.VERSION,
            "worker_processes": self._controller.concurrency,
            "worker_busy_processes": len(running),
            "worker_longest_task_seconds": running[0]["seconds"] if running else 0.0,
            "up_seconds": round(time.monotonic() - self._since),
            "queues": sorted(self._controller.app.amqp.queues.consume_from),
            "running": running[:MOST_RUNNING],
        }


def stamp(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Write into a message when it was sent: Celery does not."""
    if headers is not None:
        headers.setdefault(SENT_AT, time.time())


def start(sender: Any, **_: Any) -> None:
    """Begin the worker's heartbeat, and name the Redis that its counters go to."""
    counters.flush_to(client)
    heartbeat = Heartbeat(sender)
    heartbeat_sent.connect(heartbeat.beat, weak=False)
    worker_shutting_down.connect(heartbeat.leave, weak=False)
    worker_shutdown.connect(heartbeat.end, weak=False)


def task_starts(task_id: str, task: Task[Any, Any], **_: Any) -> None:
    """Note when a task begins, and count how long its message was on its way."""
    _began[task_id] = time.monotonic()
    seconds = waited((getattr(task.request, "headers", None) or {}).get(SENT_AT))
    about = task.request.delivery_info or {}
    if seconds is not None and "routing_key" in about and not about.get("redelivered"):
        counters.observe(QUEUED_SECONDS, str(about["routing_key"]), seconds=seconds)


def task_ends(task_id: str, task: Task[Any, Any], state: str | None = None, **_: Any) -> None:
    """Count a task that ended, and its runtime."""
    began = _began.pop(task_id, None)
    if began is not None:
        counters.observe(RUN_SECONDS, task.name, seconds=time.monotonic() - began)
    counters.add(RUNS, task.name, _OUTCOMES.get(state or "", "other"))
    counters.flush(at_once=True)


def task_killed(sender: Task[Any, Any], exception: BaseException, **_: Any) -> None:
    """Count a task whose process was killed: only the worker's main process is left to count it."""
    if isinstance(exception, TimeLimitExceeded | WorkerLostError):
        counters.add(RUNS, sender.name, KILLED)
        counters.flush(at_once=True)


def task_expired(sender: Task[Any, Any], expired: bool = False, **_: Any) -> None:
    """Count a message that expired; Celery's signal also speaks of those that were revoked."""
    if expired:
        counters.add(EXPIRED, sender.name)
        counters.flush(at_once=True)
