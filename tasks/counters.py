"""Counters and histograms of what only processes know, added up over all processes and hosts in one Redis hash.

A process gathers increments in memory and hands them on in one round trip, at most each FLUSH_SECONDS and at the end of each
task; the gateway shows the sums (workers/operations). Reasons: docs/decisions/operations.md.
"""

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson
import structlog
from redis import Redis
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

# Field to number. A field is a JSON list: name, label values, and for a histogram a bucket's upper bound, "+Inf" or "sum".
KEY = "chat-workers:counters"
FLUSH_SECONDS = 1.0
# After a failed hand-over; until then increments gather in memory.
RETRY_SECONDS = 5.0
# Fields that one process keeps; label values are bounded where they are made, so this is for a mistake.
MOST_FIELDS = 2000


@dataclass(frozen=True, slots=True)
class Counter:
    """A number of events; `name` without chat_workers_ and _total."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took, in seconds; `buckets` are upper bounds."""

    name: str
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...]
    bounds: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", (*map(repr, self.buckets), "+Inf"))


MILLISECONDS_TO_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MILLISECONDS_TO_HOURS = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 1800.0, 10800.0)

DELIVERIES = Counter("deliveries", "Messages to single devices that got a result.", ("provider", "outcome", "reason"))
SEND_SECONDS = Histogram(
    "delivery_send_seconds",
    "From a message's request to the provider's answer.",
    ("provider",),
    MILLISECONDS_TO_SECONDS,
)
SETTLED = Counter("notifications_settled", "Notifications by the status they were given.", ("status",))
SCANS = Counter("scans", "Attachments by the verdict they were given.", ("verdict",))
TASKS = Counter("tasks", "Task runs by how they ended; killed: time limit or death of the process.", ("task", "outcome"))
TASK_SECONDS = Histogram("task_seconds", "Runtime of tasks.", ("task",), MILLISECONDS_TO_HOURS)
QUEUED_SECONDS = Histogram(
    "task_queued_seconds", "From a message's sending to its task's start, for senders that say when.", ("queue",),
    MILLISECONDS_TO_HOURS,
)  # fmt: skip

# What the gateway shows: one line here for each.
METRICS: tuple[Counter | Histogram, ...] = (
    DELIVERIES,
    SEND_SECONDS,
    SETTLED,
    SCANS,
    TASKS,
    TASK_SECONDS,
    QUEUED_SECONDS,
)

_Field = tuple[str, ...]
_gathered: dict[_Field, float] = {}
_lock = threading.Lock()
_handing_over = threading.Lock()
_next_flush = 0.0
_paused_until = 0.0
_connect: Callable[[], Redis] | None = None


def add(counter: Counter, *labels: str, amount: int = 1) -> None:
    """Count events."""
    with _lock:
        _add((counter.name, *labels), amount)


def observe(histogram: Histogram, *labels: str, seconds: float) -> None:
    """Count one duration."""
    bucket = histogram.bounds[bisect_left(histogram.buckets, seconds)]
    with _lock:
        _add((histogram.name, *labels, bucket), 1)
        _add((histogram.name, *labels, "sum"), seconds)


def _add(field: _Field, amount: float) -> None:
    if field in _gathered:
        _gathered[field] += amount
    elif len(_gathered) < MOST_FIELDS:
        _gathered[field] = amount


def flush_to(connect: Callable[[], Redis]) -> None:
    """Say where this process's increments go: `connect` returns a client with short timeouts, and is asked at each flush."""
    global _connect
    _connect = connect


def flush(*, at_once: bool = False) -> None:
    """Hand the increments on if FLUSH_SECONDS have passed, or now. A Redis that is away delays nobody: they wait in memory.

    A killed process takes along what it had not handed on, about a second's worth; where only Redis's answer was lost, the same
    increments are handed on twice.
    """
    global _next_flush, _paused_until
    now = time.monotonic()
    if _connect is None or not _gathered or now < _paused_until or (now < _next_flush and not at_once):
        return
    if not _handing_over.acquire(blocking=False):
        return
    try:
        with _lock:
            taken = dict(_gathered)
            _gathered.clear()
        try:
            _send(_connect(), taken)
            _next_flush = now + FLUSH_SECONDS
        except RedisError as error:
            _paused_until = time.monotonic() + RETRY_SECONDS
            with _lock:
                for key, amount in taken.items():
                    _add(key, amount)
            log.debug("counters kept in memory", reason=str(error))
    finally:
        _handing_over.release()


def _forget_the_parents_increments() -> None:
    global _lock, _handing_over
    _lock, _handing_over = threading.Lock(), threading.Lock()
    _gathered.clear()


os.register_at_fork(after_in_child=_forget_the_parents_increments)


def _send(client: Redis, increments: dict[_Field, float]) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for key, amount in increments.items():
            name = orjson.dumps(key)
            if isinstance(amount, int):
                pipeline.hincrby(KEY, name, amount)
            else:
                pipeline.hincrbyfloat(KEY, name, amount)
        pipeline.execute()


def read(client: Redis) -> dict[_Field, float]:
    """Return the sums over all processes, by field: one command. Fields that are none of ours are left out."""
    found = ((_field(key), float(value)) for key, value in client.hgetall(KEY).items())
    return {field: amount for field, amount in found if field}


# How many label values follow a name; a histogram's bucket is one of them.
_LENGTHS = {metric.name: len(metric.labels) + isinstance(metric, Histogram) for metric in METRICS}


def _field(key: bytes | str) -> _Field:
    """Return the field that a key of the hash stands for, () if for none."""
    try:
        found = orjson.loads(key)
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        return ()
    return tuple(found) if found and _LENGTHS.get(found[0]) == len(found) - 1 else ()
