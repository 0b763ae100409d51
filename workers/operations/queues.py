"""The broker's queues: messages, the oldest one's age, what is unacked, who consumes, if anyone; what no worker can run."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import orjson
from kombu.transport.redis import PRIORITY_STEPS, Channel
from redis import Redis

from settings import get_settings
from tasks.facts import Alert, Fact, Row, Table
from tasks.jobs import QUEUES, TASKS, configured
from tasks.words import duration
from workers.messages import rejected
from workers.messages.read import SENT_AT, waited
from workers.operations import fleet

# Where a producer's message goes that names no queue: nobody of ours reads it.
STRAY = "celery"
# With one message a child there are as many unacked ones as busy children.
MOST_UNACKED = 1000
# Of the messages at the head, the oldest that says when it was sent gives the age: beat's and the gateway's say it.
LOOKED_AT = 20


def _queues(client: Redis) -> list[Row]:
    unacked = _unacked(client)
    consumers = Counter(name for worker in fleet.workers(client) for name in worker["queues"])
    expected = {TASKS[task].queue for task in configured(get_settings())}
    return [
        {
            "queue": name,
            **_waiting(client, name),
            "queue_unacked_messages": unacked[name],
            "queue_consumers": consumers[name] if name in expected else None,
            "consumers": consumers[name],
        }
        for name in (*QUEUES, STRAY)
    ]


def _waiting(client: Redis, name: str) -> Row:
    """Return how many messages wait in a queue, and for how long the oldest has. kombu keeps a list for each priority."""
    with client.pipeline(transaction=False) as pipeline:
        for step in PRIORITY_STEPS:
            key = f"{name}{Channel.sep}{step}" if step else name
            pipeline.llen(key)
            # kombu pushes on the left and takes from the right.
            pipeline.lrange(key, -LOOKED_AT, -1)
        answers = pipeline.execute()
    ages = [waited(_within(raw, "headers", SENT_AT)) or 0.0 for raws in answers[1::2] for raw in raws]
    return {"queue_messages": sum(answers[0::2]), "queue_oldest_message_age_seconds": max(ages, default=0.0)}


def _within(raw: bytes, *path: str | int) -> Any:
    """Return what lies at a path in JSON; None if nothing does, for anybody may have written it."""
    try:
        found = orjson.loads(raw)
        for step in path:
            found = found[step]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return found


def _unacked(client: Redis) -> "Counter[str]":
    """Count what workers have taken and not acknowledged, by queue; MOST_UNACKED messages are looked at."""
    _, found = client.hscan(Channel.unacked_key, 0, count=MOST_UNACKED)
    # [message, exchange, routing key], and each queue has a key of its own.
    return Counter(str(_within(raw, 2)) for raw in cast(dict[bytes, bytes], found).values())


def _oldest_unacked(client: Redis) -> list[Row]:
    first: Any = client.zrange(Channel.unacked_index_key, 0, 0, withscores=True)
    return [{"queue_oldest_unacked_age_seconds": max(time.time() - first[0][1], 0.0) if first else 0.0}]


def _refused(client: Redis) -> Iterator[Row]:
    for (queue, defect), amount in sorted(rejected.rejected_counts(client).items()):
        yield {"queue": queue, "defect": defect, "messages_rejected": amount}


KEPT = Fact(
    "messages_kept", "Refused messages that wait for an operator; the other messages are not held up.",
    alert=Alert("ChatWorkersMessagesRejected", "warning",
                "Refused messages kept for an operator (`chat-workers messages list`): {value}", above=0),
)  # fmt: skip
REFUSED = Fact("messages_rejected", "Messages that no worker could run, by queue and defect.", "so far", is_counter=True)

MESSAGES = (
    Table("kept", "", (), lambda client: [{KEPT.name: client.xlen(rejected.KEPT)}], (KEPT,)),
    Table("refused", "Refused messages", ("queue", "defect"), _refused, (REFUSED,)),
)
TABLES = (
    Table("queues", "Queues", ("queue",), _queues, (
        Fact("queue_messages", "Messages that wait in Redis.", "messages", Alert(
            "ChatWorkersStrayMessages", "warning",
            "Messages in the queue celery, which nobody reads, for a producer names no queue: {value}",
            above=0, minutes=5, where={"queue": (STRAY,)},
        )),
        Fact("queue_oldest_message_age_seconds",
             "Age of the longest waiting message that says when it was sent, of the twenty at the head.",
             "oldest", Alert(
            "ChatWorkersQueueStuck", "warning", "A message has waited in the queue {queue} for {value}",
            "; {queue_messages} waiting in it", above=300, where={"queue": tuple(QUEUES)},
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
