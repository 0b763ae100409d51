"""The workers: their heartbeats in Redis, which say each one's queues and running tasks, and which of them are lost."""

import time
from typing import cast

import orjson
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
# A worker of another version may say less than this, and a lost one says nothing.
SILENT: Row = {"queues": [], "running": [], "up_seconds": 0, "worker_processes": None, "worker_busy_processes": None}


def announce(client: Redis, name: str, about: Row) -> None:
    """Say that a worker lives, and what it is at: its row but for name and state. Called by its main process."""
    now = time.time()
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set(ALIVE + name, orjson.dumps(about), ex=ALIVE_SECONDS)
        pipeline.zadd(NAMES, {name: now})
        pipeline.zremrangebyscore(NAMES, 0, now - MISSED_SECONDS)
        pipeline.execute()


def leave(client: Redis, name: str) -> None:
    """Say that a worker was stopped, so it is not reported as lost."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.delete(ALIVE + name)
        pipeline.zrem(NAMES, name)
        pipeline.execute()


def workers(client: Redis) -> list[Row]:
    """Return the workers that live and those that were lost within the last hour: two round trips."""
    names = sorted(name.decode() for name in cast(list[bytes], client.zrevrange(NAMES, 0, MOST_WORKERS - 1)))
    found = client.mget([ALIVE + name for name in names]) if names else []
    return [
        {"worker": name, "worker_up": raw is not None, **SILENT, **(orjson.loads(raw) if raw else {})}
        for name, raw in zip(names, found, strict=True)
    ]


def _busy(row: Row) -> str:
    return f"{row['worker_busy_processes']} of {row['worker_processes']}" if row["worker_processes"] else "-"


def _at(row: Row) -> str:
    return ", ".join(f"{task['task']} for {duration(task['seconds'])}" for task in row["running"]) or "-"


TABLES = (
    Table("workers", "Workers", ("worker",), workers, (
        Fact("worker_up", "1 if the worker has said so lately, 0 if it was lost: killed, hanging, or its machine is gone.",
             "state", Alert(
            "ChatWorkersWorkerLost", "warning", "Gone silent without having been stopped: {worker}", below=1,
        ), show=lambda row: f"up for {duration(row['up_seconds'])}" if row["worker_up"] else "LOST"),
        Column("queues", lambda row: ", ".join(row["queues"]) or "-"),
        Fact("worker_busy_processes", "Tasks that run now.", "busy", show=_busy),
        Fact("worker_processes", "Children of the worker's pool."),
        Fact("worker_longest_task_seconds", "How long the oldest running task has run."),
        Column("at", _at),
    ), empty="none has ever been seen"),
)  # fmt: skip
