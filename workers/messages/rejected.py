"""Where messages that no worker can run are kept: in Redis, whole, counted, and bounded.

A stream of the newest, and a hash of counts by queue and defect. They are in Redis, not in MySQL: a worker's event loop
depends on Redis alone, and a flood of bad messages must not become a flood of rows. At most MOST_KEPT x MOST_BYTES are held
(16 MB); what a flood pushes out is counted. Nothing here is the truth of anything: a message is a nudge, its row is in MySQL.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from redis import Redis

from workers.messages.contract import MOST_BYTES, RefusedError

KEPT = "chat-workers:messages:rejected"
COUNTS = "chat-workers:messages:rejected-counts"
MOST_KEPT = 500
# Of a message that is longer than any can be; enough to see whose it is.
SHOWN_BYTES = 1024
# The field of the counts that operators take from; the others are queue and defect.
_TAKEN = b"taken"


@dataclass(frozen=True)
class Rejected:
    """A message kept aside. `raw` is all of it unless `size` says otherwise, in bytes."""

    id: str
    queue: str
    defect: str
    detail: str
    size: int
    sha256: str
    raw: bytes

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(int(self.id.partition("-")[0]) / 1000, UTC)

    @property
    def whole(self) -> bool:
        return len(self.raw) == self.size


def keep(pipeline: Redis, queue: str, raw: bytes, refused: RefusedError) -> None:
    """Add a message to the kept ones, and count it. Given a pipeline, it is done with it or not at all."""
    fields = {
        "queue": queue,
        "defect": refused.defect,
        "detail": refused.detail,
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "raw": raw if len(raw) <= MOST_BYTES else raw[:SHOWN_BYTES],
    }
    pipeline.xadd(KEPT, cast(Any, fields), maxlen=MOST_KEPT, approximate=False)
    count(pipeline, queue, refused.defect)


def count(pipeline: Redis, queue: str, defect: str) -> None:
    """Count a message that is not kept: a broadcast, which each worker gets a copy of."""
    pipeline.hincrby(COUNTS, f"{queue}|{defect}", 1)


def rejected_counts(redis: Redis) -> dict[tuple[str, str], int]:
    """Return how many messages were refused since the counts began, by queue and defect: one HGETALL of a small hash.

    Queues are those of celery_config.QUEUES and "broker"; defects are the keys of contract.DEFECTS. Raise RedisError.
    """
    found = cast(dict[bytes, bytes], redis.hgetall(COUNTS))
    counts = {}
    for field, value in found.items():
        queue, bar, defect = field.decode().partition("|")
        if bar:
            counts[queue, defect] = int(value)
    return counts


def kept_count(redis: Redis) -> int:
    """Return how many messages are kept."""
    return redis.xlen(KEPT)


def dropped_count(redis: Redis) -> int:
    """Return how many messages were refused and are kept no more, though no operator took them: a flood pushed them out."""
    taken = int(cast(bytes | None, redis.hget(COUNTS, cast(str, _TAKEN))) or 0)
    kept = {key: n for key, n in rejected_counts(redis).items() if key[1] not in {"control", "key type"}}
    return max(0, sum(kept.values()) - kept_count(redis) - taken)


def kept(redis: Redis, most: int = MOST_KEPT) -> Iterator[Rejected]:
    """Yield the kept messages, the newest first."""
    for identity, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], redis.xrevrange(KEPT, count=most)):
        yield _rejected(identity, fields)


def find(redis: Redis, identity: str) -> Rejected | None:
    """Return a kept message by its id; None if it is not, or no longer, there."""
    found = cast(list[tuple[bytes, dict[bytes, bytes]]], redis.xrange(KEPT, identity, identity))
    return _rejected(*found[0]) if found else None


def discard(redis: Redis, identity: str) -> bool:
    """Remove a kept message. Return whether it was there."""
    removed = bool(redis.xdel(KEPT, identity))
    if removed:
        redis.hincrby(COUNTS, cast(str, _TAKEN), 1)
    return removed


def discard_all(redis: Redis) -> int:
    """Remove all kept messages. Return how many there were."""
    return sum(discard(redis, found.id) for found in kept(redis))


def _rejected(identity: bytes, fields: dict[bytes, bytes]) -> Rejected:
    text = {name: fields[name.encode()].decode() for name in ("queue", "defect", "detail", "sha256")}
    return Rejected(id=identity.decode(), size=int(fields[b"size"]), raw=fields[b"raw"], **text)
