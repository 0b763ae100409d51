"""The broker's queues: messages, the oldest one's age, what is unacked, who consumes; also where nobody does."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

import orjson
from kombu.transport.redis import PRIORITY_STEPS, Channel
from prometheus_client.metrics_core import Metric
from redis import Redis
from redis.exceptions import NoPermissionError

from settings import get_settings
from tasks.jobs import QUEUES, TASKS, configured
from tasks.words import duration
from workers.messages.read import SENT_AT
from workers.operations import fleet
from workers.operations.report import Section, Table, Trouble, gauge

# Where a producer's message goes that names no queue: nobody of ours reads it.
STRAY = "celery"
UNACKED, UNACKED_INDEX = Channel.unacked_key, Channel.unacked_index_key
# With one message a child there are as many unacked ones as busy children.
MOST_UNACKED = 1000
# Queue to `[delivery tag, when it was first seen as the oldest]`: for messages whose sender does not say when it sent them.
HEADS = "chat-workers:heads"
LARGEST_HEAD_BYTES = 100_000
# kombu pushes on the left and takes from the right. A head that is too large is cut by Redis: its beginning tells it from the
# next one, and nobody can make each look fetch megabytes.
HEAD = f"""
local head = redis.call('LINDEX', KEYS[1], -1)
return head and #head > {LARGEST_HEAD_BYTES} and string.sub(head, 1, 1000) or head
"""

LATE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue. `oldest_age` is in seconds; at least that, where the sender does not say when it sent a message."""

    name: str
    messages: int
    oldest_age: float
    unacked: int
    consumers: int
    expected: bool
    """The environment sets up the job whose queue this is, so someone must consume it."""


@dataclass(frozen=True, slots=True)
class Queues:
    """All queues, and how long the oldest message that a worker took has not been acknowledged, in seconds."""

    queues: list[Queue]
    oldest_unacked_age: float


def read(client: Redis) -> Queues:
    """Return the queues now: four round trips."""
    names = (*QUEUES, STRAY)
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            for key in _lists(name):
                pipeline.llen(key)
                # Where the Redis user may only read, a script is refused: it might write.
                pipeline.lindex(key, -1) if name == STRAY else pipeline.eval(HEAD, 1, key)
        pipeline.hgetall(HEADS)
        pipeline.hlen(UNACKED)
        pipeline.zrange(UNACKED_INDEX, 0, 0, withscores=True)
        *lists, heads, unacked, first = pipeline.execute(raise_on_error=False)
    _raise([heads, unacked, first])
    per_queue = _unacked(client) if unacked else Counter()
    consumers = Counter(name for worker in fleet.read(client).workers if worker.alive for name in worker.queues)
    expected, now = _expected(), time.time()
    seen = _seen(heads)
    queues: list[Queue] = []
    oldest: dict[str, float] = {}
    for place, name in enumerate(names):
        own = lists[place * 2 * len(PRIORITY_STEPS) : (place + 1) * 2 * len(PRIORITY_STEPS)]
        if name == STRAY and any(isinstance(each, NoPermissionError) for each in own):
            continue  # this Redis user may not look there: it is none of our queues
        _raise(own)
        tails = [_Head.of(raw) for raw in own[1::2] if raw]
        since = {head.tag: head.sent_at or seen.get(head.tag, now) for head in tails}
        oldest |= {head.tag: since[head.tag] for head in tails if head.sent_at is None}
        age = max((now - moment for moment in since.values()), default=0.0)
        depth = sum(own[0::2])
        queues.append(Queue(name, depth, max(age, 0.0), per_queue[name], consumers[name], name in expected))
    if oldest != seen:
        _remember(client, oldest)
    return Queues(queues, max(now - first[0][1], 0.0) if first else 0.0)


def _seen(heads: dict[bytes, bytes]) -> dict[str, float]:
    """Return when each head was first seen. What is no number was not written by us, and is overwritten."""
    found: dict[str, float] = {}
    for tag, value in heads.items():
        with suppress(ValueError):
            found[tag.decode()] = float(value)
    return found


def _raise(answers: list[Any]) -> None:
    """Raise the first answer that is an error."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer


@dataclass(frozen=True, slots=True)
class _Head:
    """The oldest message of a list: what tells it from the next one, and when it was sent if it says so."""

    tag: str
    sent_at: float | None

    @classmethod
    def of(cls, raw: bytes) -> "_Head":
        try:
            message = orjson.loads(raw)
        except orjson.JSONDecodeError:
            message = None
        message = message if isinstance(message, dict) else {}
        headers, properties = message.get("headers"), message.get("properties")
        sent_at = headers.get(SENT_AT) if isinstance(headers, dict) else None
        tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
        return cls(str(tag or sha256(raw).hexdigest()), float(sent_at) if isinstance(sent_at, int | float) else None)


def _lists(name: str) -> list[str]:
    """Return the lists of a queue: kombu keeps one for each priority."""
    return [f"{name}{Channel.sep}{step}" if step else name for step in PRIORITY_STEPS]


def _unacked(client: Redis) -> "Counter[str]":
    """Count what workers have taken and not acknowledged, by queue; MOST_UNACKED messages are looked at."""
    _, found = client.hscan(UNACKED, 0, count=MOST_UNACKED)
    counted: Counter[str] = Counter()
    for raw in cast(dict[bytes, bytes], found).values():
        counted[_queue_of(raw)] += 1
    return counted


def _queue_of(raw: bytes) -> str:
    """Return the queue of what kombu keeps as [message, exchange, routing key], each queue having a key of its own.

    What is no such entry belongs to no queue; workers take it out by themselves (workers/messages/transport.py).
    """
    try:
        return str(orjson.loads(raw)[2])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return ""


def _remember(client: Redis, oldest: dict[str, float]) -> None:
    with client.pipeline() as pipeline:
        pipeline.delete(HEADS)
        if oldest:
            pipeline.hset(HEADS, mapping=oldest)  # type: ignore[arg-type]
        pipeline.execute()


def _expected() -> frozenset[str]:
    return frozenset(TASKS[task].queue for task in configured(get_settings()))


def metrics(found: Queues) -> Iterator[Metric]:
    """Yield the gauges."""
    rows = [((queue.name,), queue) for queue in found.queues]
    yield gauge("queue_messages", "Messages that wait in Redis.", [(k, q.messages) for k, q in rows], "queue")
    yield gauge(
        "queue_oldest_message_age_seconds",
        "Age of the longest waiting message; since it was first seen as such, where its sender does not say more.",
        [(k, q.oldest_age) for k, q in rows],
        "queue",
    )
    yield gauge(
        "queue_unacked_messages",
        "Messages that a worker has taken and not acknowledged.",
        [(k, q.unacked) for k, q in rows],
        "queue",
    )
    yield gauge("queue_oldest_unacked_age_seconds", "Since a worker took the first of them.", [((), found.oldest_unacked_age)])
    yield gauge(
        "queue_consumers",
        "Workers alive that take from the queue; queues of jobs that are not set up are left out.",
        [(k, q.consumers if q.expected else None) for k, q in rows],
        "queue",
    )


def troubles(found: Queues) -> Iterator[Trouble]:
    """Yield what is wrong now."""
    for queue in found.queues:
        waiting = f"{queue.messages:,} message{'s' * (queue.messages != 1)}"
        if queue.expected and not queue.consumers:
            yield Trouble(
                "ChatWorkersQueueWithoutWorker",
                "critical",
                f"No worker takes from the queue {queue.name}; {queue.messages:,} wait in it.",
            )
        elif queue.name == STRAY and queue.messages:
            yield Trouble(
                "ChatWorkersStrayMessages",
                "warning",
                f"{waiting} lie in the queue {STRAY}, which nobody reads: a producer names no queue.",
            )
        elif queue.oldest_age > LATE_SECONDS:
            yield Trouble(
                "ChatWorkersQueueStuck",
                "warning",
                f"The oldest of {waiting} in the queue {queue.name} has waited for {duration(queue.oldest_age)}.",
            )


def tables(found: Queues) -> Iterator[Table]:
    """Yield what a person wants to see."""
    yield Table(
        "Queues",
        ("queue", "messages", "oldest", "unacked", "workers"),
        tuple(
            (
                queue.name,
                f"{queue.messages:,}",
                duration(queue.oldest_age) if queue.messages else "-",
                queue.unacked,
                queue.consumers if queue.consumers or queue.expected else "none needed",
            )
            for queue in found.queues
            if queue.name != STRAY or queue.messages
        ),
    )


SECTION = Section("queues", read, metrics, troubles, tables)
