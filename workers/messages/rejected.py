"""The messages that no worker can run: the newest are kept in Redis, whole, and all are counted by queue and defect."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

from redis import Redis

from workers.messages.read import MOST_BYTES, RefusedError

KEPT = "chat-workers:messages:rejected"
COUNTS = "chat-workers:messages:rejected-counts"
MOST_KEPT = 500  # of MOST_BYTES at most: 16 MB
# Of a message that is longer than any can be; enough to see whose it is.
SHOWN_BYTES = 1024


def keep(pipeline: Redis, queue: str, raw: bytes, refused: RefusedError) -> None:
    """Add a message to the kept ones, and count it. Given a pipeline, it is done with it or not at all."""
    shown = raw if len(raw) <= MOST_BYTES else raw[:SHOWN_BYTES]
    fields = {"queue": queue, "defect": refused.defect, "detail": refused.detail, "size": len(raw), "raw": shown}
    pipeline.xadd(KEPT, cast(Any, fields), maxlen=MOST_KEPT, approximate=False)
    count(pipeline, queue, refused.defect)


def count(pipeline: Redis, queue: str, defect: str) -> None:
    """Count a message that is not kept: a broadcast, which each worker gets a copy of."""
    pipeline.hincrby(COUNTS, f"{queue}|{defect}", 1)


def rejected_counts(redis: Redis) -> dict[tuple[str, str], int]:
    """Return how many were refused since the counts began, by queue (or "broker") and defect. Raise RedisError."""
    found = cast(dict[bytes, bytes], redis.hgetall(COUNTS))
    parted = ((field.decode().rpartition("|"), int(value)) for field, value in found.items())
    return {(queue, defect): amount for (queue, bar, defect), amount in parted if bar}


def kept(redis: Redis, most: int = MOST_KEPT) -> Iterator[dict[str, Any]]:
    """Yield the kept messages, the newest first; of an entry that someone else wrote, what is there.

    `raw` is all of a message unless `size` says otherwise, in bytes.
    """
    for identity, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], redis.xrevrange(KEPT, count=most)):
        raw, size = fields.get(b"raw", b""), fields.get(b"size", b"")
        yield {
            "id": identity.decode(),
            "at": datetime.fromtimestamp(int(identity.partition(b"-")[0]) / 1000, UTC),
            **{name: fields.get(name.encode(), b"").decode(errors="replace") for name in ("queue", "defect", "detail")},
            "size": int(size) if size.isdigit() else len(raw),
            "raw": raw,
        }
