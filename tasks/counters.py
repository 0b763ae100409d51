"""Counters and histograms that the processes keep, summed over all hosts in one Redis hash, with a copy of it for each minute.

The gateway shows the sums (workers/operations). Reasons: docs/decisions/operations.md.
"""

import os
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

import orjson
import structlog
from redis import Redis
from redis.exceptions import RedisError

from tasks.facts import Counter, Histogram

log = structlog.get_logger(__name__)

# Field to number. A field is a JSON list: name, label values, and for a histogram a bucket's upper bound, "+Inf" or "sum".
KEY = "chat-workers:counters"
# With the minute behind it, Unix seconds / 60: the hash as it was then.
SAMPLE = f"{KEY}:"
SAMPLES = 60
# Each worker tries so often, and the first of a minute makes its sample.
SAMPLE_SECONDS = 20.0
FLUSH_SECONDS = 1.0
# After a failed hand-over; until then increments gather in memory.
RETRY_SECONDS = 5.0

Sums = dict[tuple[str, ...], float]
"""By the fact's name, its label values and, of a histogram, a bucket's bound or `sum`."""

_gathered: Sums = defaultdict(int)
_lock = threading.Lock()
_next_flush = 0.0
_paused_until = 0.0
_next_sample = 0.0
_connect: Callable[[], Redis] | None = None


def add(counter: Counter, *labels: str, amount: int = 1) -> None:
    """Count events."""
    with _lock:
        _gathered[counter.name, *labels] += amount


def observe(histogram: Histogram, *labels: str, seconds: float) -> None:
    """Count one duration."""
    bucket = histogram.bounds[bisect_left(histogram.buckets, seconds)]
    with _lock:
        _gathered[histogram.name, *labels, bucket] += 1
        _gathered[histogram.name, *labels, "sum"] += seconds


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
    with _lock:
        taken = dict(_gathered)
        _gathered.clear()
    _next_flush = now + FLUSH_SECONDS
    try:
        with _connect().pipeline(transaction=False) as pipeline:
            for field, amount in taken.items():
                pipeline.hincrbyfloat(KEY, orjson.dumps(field), amount)
            answers = pipeline.execute(raise_on_error=False)
    except RedisError as error:
        answers = [error] * len(taken)
    # Being out of memory, Redis takes some and refuses others.
    refused = {field: answer for field, answer in zip(taken, answers, strict=True) if isinstance(answer, RedisError)}
    if refused:
        _paused_until = time.monotonic() + RETRY_SECONDS
        with _lock:
            for field in refused:
                _gathered[field] += taken[field]
        log.debug("counters kept in memory", reason=str(next(iter(refused.values()))))


def _forget_the_parents_increments() -> None:
    global _lock
    _lock = threading.Lock()
    _gathered.clear()


os.register_at_fork(after_in_child=_forget_the_parents_increments)


def sample(**gauges: Callable[[], int]) -> None:
    """Keep a copy of the sums for this minute, and what the gauges say, unless some worker has. A Redis that is away has none.

    Redis copies it itself, by its own clock, and forgets it after an hour. It is made before anything was counted, too: a first
    event is an increase.
    """
    global _next_sample
    if _connect is None or time.monotonic() < _next_sample:
        return
    _next_sample = time.monotonic() + SAMPLE_SECONDS
    with suppress(RedisError), _connect().pipeline(transaction=False) as pipeline:
        name = f"{SAMPLE}{_connect().time()[0] // 60}"
        pipeline.hincrby(KEY, "[]", 0)
        pipeline.copy(KEY, name)
        for gauge, measure in gauges.items():
            pipeline.hsetnx(name, orjson.dumps([gauge]), measure())
        pipeline.expire(name, SAMPLES * 60)
        pipeline.execute()


def minutes(client: Redis, fields: Collection[tuple[str, ...]]) -> list[Sums | None]:
    """Return these fields of the samples of the last hour, the newest first; None for a minute without. Two round trips."""
    newest, names = client.time()[0] // 60, [b"[]", *map(orjson.dumps, fields)]
    with client.pipeline(transaction=False) as pipeline:
        for age in range(SAMPLES):
            pipeline.hmget(f"{SAMPLE}{newest - age}", names)
        found = pipeline.execute()
    return [
        {field: float(each) for field, each in zip(fields, values, strict=True) if each} if made else None
        for made, *values in found
    ]


def read(client: Redis, facts: Iterable[Counter | Histogram]) -> Sums:
    """Return the sums over all processes: one command. Fields that belong to none of these facts are left out."""
    # How many label values follow a name; a histogram's bucket is one of them. Another version may count other facts.
    lengths = {fact.name: len(fact.labels) + isinstance(fact, Histogram) for fact in facts}
    found = {tuple(orjson.loads(field)): float(value) for field, value in client.hgetall(KEY).items()}
    return {field: amount for field, amount in found.items() if field and lengths.get(field[0]) == len(field) - 1}
