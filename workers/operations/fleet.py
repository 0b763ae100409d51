"""The workers: their heartbeats in Redis, which say each one's queues and running tasks, and which of them are lost."""

import time
from importlib import metadata
from typing import cast

import orjson
from redis import Redis

from tasks.facts import Alert, Column, Fact, Row, Table
from tasks.words import duration

VERSION = metadata.version("chat-workers")
# A key for each worker that ends by itself: no two hosts' clocks are compared. Its name stays in NAMES, so that a worker
# that dies is missed; one that is stopped takes its name along.
ALIVE = "chat-workers:worker:"
NAMES = "chat-workers:workers"
ALIVE_SECONDS = 15
MISSED_SECONDS = 3600
MOST_WORKERS = 500
# A worker of another version may say less than this, and a lost one says nothing.
SILENT: Row = {"queues": [], "running": [], "up_seconds": 0, "version": "-", "worker_processes": None,
               "worker_busy_processes": None, "worker_name_shared": False}  # fmt: skip
# More than hosts differ by that follow NTP, and than heartbeats are apart: one may come between two looks at a key.
MOST_SKEW_SECONDS = 3.0
CLOCK = "worker_clock_off_seconds"


def announce(client: Redis, name: str, about: Row) -> Row:
    """Say that a worker lives, and what it is at: its row but for name and state. Called by its main process.

    Return what was said last under this name, {} if nothing lately.
    """
    now = time.time()
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set(ALIVE + name, orjson.dumps({**about, "at": now}), ex=ALIVE_SECONDS, get=True)
        pipeline.zadd(NAMES, {name: now})
        pipeline.zremrangebyscore(NAMES, 0, now - MISSED_SECONDS)
        before, *_ = pipeline.execute()
    return orjson.loads(before) if before else {}


def leave(client: Redis, name: str) -> None:
    """Say that a worker was stopped, so it is not reported as lost."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.delete(ALIVE + name)
        pipeline.zrem(NAMES, name)
        pipeline.execute()


def workers(client: Redis) -> list[Row]:
    """Return the workers that live and those that were lost within the last hour: two round trips.

    A clock is compared with Redis's: a heartbeat says when it was written, and the rest of its key's life when it arrived.
    """
    names = sorted(name.decode() for name in cast(list[bytes], client.zrevrange(NAMES, 0, MOST_WORKERS - 1)))
    with client.pipeline(transaction=False) as pipeline:  # a Redis that is full takes no MULTI
        pipeline.time()
        for name in names:
            pipeline.get(ALIVE + name)
            pipeline.pttl(ALIVE + name)
        (seconds, microseconds), *found = pipeline.execute()
    rows = []
    for name, raw, left in zip(names, found[::2], found[1::2], strict=True):
        row = {"worker": name, "worker_up": raw is not None, **SILENT, **(orjson.loads(raw) if raw else {})}
        arrived = seconds + microseconds / 1e6 + left / 1000 - ALIVE_SECONDS
        ahead = row.get("at", arrived) - arrived
        row[CLOCK] = round(abs(ahead), 1) if raw else None
        row["clock"] = f"{duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
        row["worker_build_info"] = 1 if raw else None
        row["worker_other_version"] = row["version"] not in {VERSION, SILENT["version"]}
        rows.append(row)
    return rows


def _state(row: Row) -> str:
    if not row["worker_up"]:
        return "LOST"
    clock = f", its clock {row['clock']}" if row[CLOCK] > MOST_SKEW_SECONDS else ""
    return f"up for {duration(row['up_seconds'])}{clock}"


def _at(row: Row) -> str:
    return ", ".join(f"{task['task']} for {duration(task['seconds'])}" for task in row["running"]) or "-"


TABLES = (
    Table("workers", "Workers", ("worker",), workers, (
        Fact("worker_up", "1 if the worker has said so lately, 0 if it was lost: killed, hanging, or its machine is gone.",
             "state", Alert(
            "ChatWorkersWorkerLost", "warning", "Gone silent without having been stopped: {worker}", below=1,
        ), show=_state),
        Fact(CLOCK, "By how much the worker's clock is off Redis's, either way.", alert=Alert(
            "ChatWorkersClockOff", "warning", "The clock of {worker} is {value} off Redis's", " ({clock})",
            above=MOST_SKEW_SECONDS, minutes=5,
        )),
        Fact("worker_name_shared", "1 if two workers say that they have this name: each hides the other.", alert=Alert(
            "ChatWorkersWorkerNameShared", "warning", "Two workers have one name, so that only one is seen: {worker}", above=0,
        )),
        Fact("worker_build_info", "1, with the version of a worker that lives.", labels=("worker", "version")),
        Fact("worker_other_version", "1 if the worker is of another version than the gateway.", alert=Alert(
            "ChatWorkersVersionsDiffer", "warning", "Of another version than the gateway: {worker}", " ({version})",
            above=0, minutes=30,
        )),
        Column("version", lambda row: row["version"]),
        Column("queues", lambda row: ", ".join(row["queues"]) or "-"),
        Fact("worker_busy_processes", "Tasks that run now.", "busy", show=lambda row: (
            f"{row['worker_busy_processes']} of {row['worker_processes']}" if row["worker_processes"] else "-"
        )),
        Fact("worker_processes", "Children of the worker's pool."),
        Fact("worker_longest_task_seconds", "How long the oldest running task has run."),
        Column("at", _at),
    ), empty="none has ever been seen"),
)  # fmt: skip
