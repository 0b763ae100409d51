"""The workers: their heartbeats in Redis, which say each one's queues and running tasks, and which of them are lost."""

import time
from dataclasses import asdict, dataclass, field
from typing import cast

import orjson
from pydantic import TypeAdapter, ValidationError
from redis import Redis

from tasks.facts import Alert, Column, Fact, Row, Table
from tasks.words import duration

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


# Fields that a newer worker tells beside these are not looked at.
_WORKER = TypeAdapter(Worker)


def announce(client: Redis, worker: Worker) -> None:
    """Say that a worker lives. Called by the worker itself, in its main process."""
    now = time.time()
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set(ALIVE + worker.name, orjson.dumps(asdict(worker)), ex=ALIVE_SECONDS)
        pipeline.zadd(NAMES, {worker.name: now})
        pipeline.zremrangebyscore(NAMES, 0, now - MISSED_SECONDS)
        pipeline.execute()


def leave(client: Redis, name: str) -> None:
    """Say that a worker was stopped, so it is not reported as lost."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.delete(ALIVE + name)
        pipeline.zrem(NAMES, name)
        pipeline.execute()


def read(client: Redis) -> list[Worker]:
    """Return the workers that live and those that were lost within the last hour: two round trips."""
    names = sorted(name.decode() for name in cast(list[bytes], client.zrevrange(NAMES, 0, MOST_WORKERS - 1)))
    found = client.mget([ALIVE + name for name in names]) if names else []
    return [_worker(name, raw) for name, raw in zip(names, found, strict=True)]


def _worker(name: str, raw: bytes | str | None) -> Worker:
    if raw is None:
        return Worker(name, alive=False)
    try:
        return _WORKER.validate_json(raw)
    except ValidationError:
        return Worker(name, alive=True)  # its key is there, so it lives; what it says cannot be read


def _workers(client: Redis) -> list[Row]:
    return [_row(worker) for worker in read(client)]


def _row(worker: Worker) -> Row:
    if not worker.alive:
        return {"worker": worker.name, "worker_up": False}
    return {
        "worker": worker.name,
        "worker_up": True,
        "worker_processes": worker.processes,
        "worker_busy_processes": worker.busy,
        "worker_longest_task_seconds": max((task.seconds for task in worker.running), default=0.0),
        "up_seconds": worker.up_seconds,
        "queues": worker.queues,
        "running": [asdict(task) for task in worker.running],
    }


def _busy(row: Row) -> str:
    return f"{row['worker_busy_processes']} of {row['worker_processes']}" if row["worker_up"] else "-"


def _at(row: Row) -> str:
    return ", ".join(f"{task['task']} for {duration(task['seconds'])}" for task in row.get("running", ())) or "-"


TABLES = (
    Table("workers", "Workers", ("worker",), _workers, (
        Fact("worker_up", "1 if the worker has said so lately, 0 if it was lost: killed, hanging, or its machine is gone.",
             "state", Alert(
            "ChatWorkersWorkerLost", "warning", "Gone silent without having been stopped: {worker}", below=1,
        ), show=lambda row: f"up for {duration(row['up_seconds'])}" if row["worker_up"] else "LOST"),
        Column("queues", lambda row: ", ".join(row.get("queues", ())) or "-"),
        Fact("worker_busy_processes", "Tasks that run now.", "busy", show=_busy),
        Fact("worker_processes", "Children of the worker's pool."),
        Fact("worker_longest_task_seconds", "How long the oldest running task has run."),
        Column("at", _at),
    ), empty="none has ever been seen"),
)  # fmt: skip
