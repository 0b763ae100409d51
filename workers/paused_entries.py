"""The entries of beat that operators have paused: a Redis hash of its own, since beat's start rewrites what RedBeat keeps."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from redis import Redis

PAUSED = "chat-workers:beat-paused"


def pause(client: Redis, name: str, by: str, why: str, lasting: timedelta | None) -> None:
    """Have no beat send the entry, until it is resumed or `lasting` is over."""
    until = _clock(client, lasting) if lasting else ""
    client.hset(PAUSED, name, orjson.dumps({"by": by, "why": why, "until": until}))


def resume(client: Redis, name: str) -> bool:
    """Take a pause back; return whether there was one. Beat then sends once what fell due meanwhile."""
    return client.hdel(PAUSED, name) == 1


def paused(client: Redis) -> dict[str, dict[str, Any]]:
    """Return who paused which entries, why and until when (empty: until it is resumed). A pause that is over is none."""
    found: Any = client.hgetall(PAUSED)
    now = _clock(client) if found else ""
    pauses = {name if isinstance(name, str) else name.decode(): orjson.loads(record) for name, record in found.items()}
    return {name: each for name, each in pauses.items() if not each["until"] or each["until"] > now}


def _clock(client: Redis, later: timedelta = timedelta()) -> str:
    """Return Redis's time, which is one for all hosts."""
    seconds, _ = client.time()
    return (datetime.fromtimestamp(seconds, UTC) + later).isoformat(timespec="seconds")
