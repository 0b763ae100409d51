"""The workers: each says every two seconds that it lives, which queues it takes from and what it is at; who is missing."""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import orjson
import structlog
from prometheus_client.metrics_core import Metric
from pydantic import TypeAdapter, ValidationError
from redis import Redis
from redis.exceptions import RedisError

from tasks.words import duration
from workers.operations.redis import client
from workers.operations.report import Section, Table, Trouble, gauge

log = structlog.get_logger(__name__)

# A key for each worker that ends by itself: no two hosts' clocks are compared. Its name stays in NAMES, so that a worker
# that dies is missed; one that is stopped takes its name along.
ALIVE = "chat-workers:worker:"
NAMES = "chat-workers:workers"
ALIVE_SECONDS = 15
MISSED_SECONDS = 3600
MOST_WORKERS = 500
MOST_RUNNING = 20


@dataclass(frozen=True, slots=True)
class Running:
    """A task that runs, and for how long."""

    task: str
    id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process with its pool's children. `busy` of them run tasks; `running` are the MOST_RUNNING oldest of these."""

    name: str
    alive: bool
    queues: list[str] = field(default_factory=list)
    processes: int = 0
    up_seconds: float = 0
    busy: int = 0
    running: list[Running] = field(default_factory=list)

    @property
    def longest_seconds(self) -> float:
        return max((task.seconds for task in self.running), default=0.0)


# Fields that a newer worker tells beside these are not looked at.
_WORKER = TypeAdapter(Worker)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All workers that live, and those that were lost within the last hour."""

    workers: list[Worker]


def announce(client: Redis, worker: Worker) -> None:
    """Say that a worker lives. Called by the worker itself, in its main process."""
    now = time.time()
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set(ALIVE + worker.name, orjson.dumps(asdict(worker)), ex=ALIVE_SECONDS)
        pipeline.zadd(NAMES, {worker.name: now})
        pipeline.zremrangebyscore(NAMES, 0, now - MISSED_SECONDS)
        pipeline.execute()


def leave(client: Redis, name: str) -> None:
    """Say that a worker was stopped: nobody need miss it."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.delete(ALIVE + name)
        pipeline.zrem(NAMES, name)
        pipeline.execute()


def read(client: Redis) -> Fleet:
    """Return the workers: two round trips."""
    names = sorted(name.decode() for name in cast(list[bytes], client.zrevrange(NAMES, 0, MOST_WORKERS - 1)))
    found = client.mget([ALIVE + name for name in names]) if names else []
    return Fleet([_worker(name, raw) for name, raw in zip(names, found, strict=True)])


def _worker(name: str, raw: bytes | str | None) -> Worker:
    if raw is None:
        return Worker(name, alive=False)
    try:
        return _WORKER.validate_json(raw)
    except ValidationError:
        return Worker(name, alive=True)  # its key is there, so it lives; what it says cannot be read


class Heartbeat:
    """What a worker tells of itself, at Celery's own heartbeats."""

    def __init__(self, controller: Any) -> None:
        """`controller` is Celery's WorkController."""
        self._controller = controller
        self._since = time.monotonic()
        self._leaving = False
        self._telling = threading.Lock()

    def beat(self) -> None:
        """Announce this worker, unless it is leaving. A Redis that is away is Celery's to report."""
        try:
            with self._telling:
                if not self._leaving:
                    announce(client(), self._worker())
        except RedisError as error:
            log.debug("heartbeat not written", reason=str(error))

    def leave(self) -> None:
        """Begin to take this worker's name away: it takes no more tasks, and Celery's heartbeats end before its tasks do.

        Called by the handler of SIGTERM, which may have cut into a heartbeat: another thread talks to Redis, after that one.
        """
        threading.Thread(target=self.end, name="leaving", daemon=True).start()

    def end(self) -> None:
        """Take this worker's name away: it was asked to stop."""
        self._leaving = True
        try:
            with self._telling:
                leave(client(), self._controller.hostname)
        except RedisError as error:
            log.debug("heartbeat not taken away", reason=str(error))

    def _worker(self) -> Worker:
        from celery.worker.state import active_requests

        now = time.time()
        started = sorted(((request, request.time_start or now) for request in list(active_requests)), key=lambda pair: pair[1])
        return Worker(
            self._controller.hostname,
            alive=True,
            queues=sorted(self._controller.app.amqp.queues.consume_from),
            processes=self._controller.concurrency,
            up_seconds=round(time.monotonic() - self._since),
            busy=len(started),
            running=[
                Running(request.name, request.id, max(round(now - start, 1), 0)) for request, start in started[:MOST_RUNNING]
            ],
        )


def metrics(found: Fleet) -> Iterator[Metric]:
    """Yield the gauges, a series for each worker that lives or was lost within the hour."""
    rows = [((worker.name,), worker) for worker in found.workers]
    yield gauge("worker_up", "1 if the worker has said so lately, 0 if it was lost.", [(k, w.alive) for k, w in rows], "worker")
    alive = [(k, w) for k, w in rows if w.alive]
    yield gauge("worker_processes", "Children of the worker's pool.", [(k, w.processes) for k, w in alive], "worker")
    yield gauge("worker_busy_processes", "Tasks that run now.", [(k, w.busy) for k, w in alive], "worker")
    yield gauge(
        "worker_longest_task_seconds",
        "How long the oldest of them has run.",
        [(k, w.longest_seconds) for k, w in alive],
        "worker",
    )


def troubles(found: Fleet) -> Iterator[Trouble]:
    """Yield what is wrong now."""
    for worker in found.workers:
        if not worker.alive:
            yield Trouble(
                "ChatWorkersWorkerLost", "warning", f"The worker {worker.name} has gone silent without having been stopped."
            )


def tables(found: Fleet) -> Iterator[Table]:
    """Yield what a person wants to see."""
    yield Table(
        "Workers",
        ("worker", "state", "queues", "busy", "at"),
        tuple(
            (
                worker.name,
                f"up for {duration(worker.up_seconds)}" if worker.alive else "LOST",
                ", ".join(worker.queues) or "-",
                f"{worker.busy} of {worker.processes}" if worker.alive else "-",
                ", ".join(f"{task.task} for {duration(task.seconds)}" for task in worker.running) or "-",
            )
            for worker in found.workers
        ),
        "none has ever been seen",
    )


SECTION = Section("workers", read, metrics, troubles, tables)
