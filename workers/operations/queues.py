"""The broker's queues: messages, the oldest one's age, what is unacked, who consumes; also where nobody does."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

import orjson
from kombu.transport.redis import PRIORITY_STEPS, Channel
from redis import Redis
from redis.exceptions import NoPermissionError

from settings import get_settings
from tasks.facts import Alert, Fact, Row, Table
from tasks.jobs import QUEUES, TASKS, configured
from tasks.words import duration
from workers.messages.read import SENT_AT
from workers.operations import fleet

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


def _queues(client: Redis) -> list[Row]:
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
        *lists, heads, unacked = pipeline.execute(raise_on_error=False)
    _raise([heads, unacked])
    per_queue = _unacked(client) if unacked else Counter()
    consumers = Counter(name for worker in fleet.read(client) if worker.alive for name in worker.queues)
    expected, now = {TASKS[task].queue for task in configured(get_settings())}, time.time()
    seen = _seen(heads)
    rows: list[Row] = []
    oldest: dict[str, float] = {}
    for place, name in enumerate(names):
        own = lists[place * 2 * len(PRIORITY_STEPS) : (place + 1) * 2 * len(PRIORITY_STEPS)]
        if name == STRAY and any(isinstance(each, NoPermissionError) for each in own):
            continue  # this Redis user may not look there: it is none of our queues
        _raise(own)
        tails = [_Head.of(raw) for raw in own[1::2] if raw]
        since = {head.tag: head.sent_at or seen.get(head.tag, now) for head in tails}
        oldest |= {head.tag: since[head.tag] for head in tails if head.sent_at is None}
        rows.append(
            {
                "queue": name,
                "queue_messages": sum(own[0::2]),
                "queue_oldest_message_age_seconds": max([0.0, *(now - at for at in since.values())]),
                "queue_unacked_messages": per_queue[name],
                "queue_consumers": consumers[name] if name in expected else None,
                "consumers": consumers[name],
            }
        )
    if oldest != seen:
        _remember(client, oldest)
    return rows


def _oldest_unacked(client: Redis) -> list[Row]:
    first: Any = client.zrange(UNACKED_INDEX, 0, 0, withscores=True)
    return [{"queue_oldest_unacked_age_seconds": max(time.time() - first[0][1], 0.0) if first else 0.0}]


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


TABLES = (
    Table("queues", "Queues", ("queue",), _queues, (
        Fact("queue_messages", "Messages that wait in Redis.", "messages", Alert(
            "ChatWorkersStrayMessages", "warning",
            "Messages in the queue celery, which nobody reads, for a producer names no queue: {value}",
            above=0, minutes=5, where={"queue": (STRAY,)},
        )),
        Fact("queue_oldest_message_age_seconds",
             "Age of the longest waiting message; since it was first seen as such, where its sender does not say more.",
             "oldest", Alert(
            "ChatWorkersQueueStuck", "warning", "A message has waited in the queue {queue} for {value}",
            "; {queue_messages} waiting in it", above=300, but={"queue": (STRAY,)},
        ), show=lambda row: duration(row["queue_oldest_message_age_seconds"]) if row["queue_messages"] else "-"),
        Fact("queue_unacked_messages", "Messages that a worker has taken and not acknowledged.", "unacked"),
        Fact("queue_consumers", "Workers alive that take from the queue; queues of jobs that are not set up are left out.",
             "workers", Alert(
            "ChatWorkersQueueWithoutWorker", "critical", "No worker takes from the queue {queue}",
            "; {queue_messages} waiting in it", below=1,
        ), show=lambda row: row["consumers"] or ("none needed" if row["queue_consumers"] is None else 0)),
    ), lists=lambda row: row["queue"] != STRAY or row["queue_messages"]),
    Table("unacked", "", (), _oldest_unacked, (
        Fact("queue_oldest_unacked_age_seconds", "Since a worker took the first unacknowledged message."),
    )),
)  # fmt: skip
