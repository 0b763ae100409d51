"""The entries of beat that operators have paused: kept in MySQL, and copied to Redis, which beat and the pages read."""

from typing import Any, cast

import orjson
from redis import Redis
from sqlalchemy import Engine

from db.rows import dicts
from tasks.pause import ENTRIES

PAUSED = "chat-workers:beat-paused"


def refresh(engine: Engine, client: Redis) -> None:
    """Copy the pauses in force. Raise SQLAlchemyError, and what was copied before holds, or RedisError."""
    with engine.connect() as connection:
        found = {row.pop("name"): orjson.dumps(row) for row in dicts(connection, ENTRIES)}
    with client.pipeline() as pipeline:
        pipeline.delete(PAUSED)
        if found:
            pipeline.hset(PAUSED, mapping=cast(Any, found))
        pipeline.execute()


def paused(client: Redis) -> dict[str, dict[str, Any]]:
    """Return who paused which entries, why and until when (None: until it is resumed)."""
    found = cast(dict[bytes, bytes], client.hgetall(PAUSED))
    return {name if isinstance(name, str) else name.decode(): orjson.loads(record) for name, record in found.items()}
