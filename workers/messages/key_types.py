"""What to do when a key of the broker holds another type of value than kombu puts there: someone ran SET on a queue.

Each command on such a key fails, so a worker would reconnect for ever. The value is renamed, not deleted.
"""

from typing import Any, cast

import structlog
from redis import Redis
from redis.exceptions import ResponseError

from tasks.jobs import QUEUES
from workers.messages import rejected

log = structlog.get_logger(__name__)

ASIDE = "chat-workers:messages:wrong-type:"
# Whose binding tables our publishers read and our workers write: of our queues, of remote control and of events.
EXCHANGES = (*QUEUES, "celery.pidbox", "reply.celery.pidbox", "celeryev")


def is_wrong_type(error: ResponseError) -> bool:
    """Return whether this is Redis's answer to a command on a value of another type, alone or in a pipeline."""
    return "WRONGTYPE" in str(error)


def expected_types(channel: Any) -> dict[str, str]:
    """Return the type of each key that kombu keeps for our queues, as the channel names them."""
    return {
        **{channel._q_for_pri(queue, step): "list" for queue in QUEUES for step in channel.priority_steps},
        **dict.fromkeys(binding_tables(channel), "set"),
        **{channel.keyprefix_binding_permanent % exchange: "set" for exchange in EXCHANGES},
        channel.keyprefix_binding_deadlines: "zset",
        channel.unacked_key: "hash",
        channel.unacked_index_key: "zset",
        channel.unacked_mutex_key: "string",
    }


def binding_tables(channel: Any) -> list[str]:
    """Return the keys under which kombu says which queues an exchange leads to."""
    return [channel.keyprefix_queue % exchange for exchange in EXCHANGES]


def mend_bindings(redis: Redis, tables: list[str], separator: str) -> None:
    """Remove what is no binding from the tables: every publisher to the exchange would fail at it. Raise RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        for table in tables:
            pipeline.smembers(table)
        found = dict(zip(tables, pipeline.execute(), strict=True))
    for table, members in found.items():
        bad = [member for member in members if not _is_binding(member, separator)]
        if bad:
            redis.srem(table, *bad)
            log.warning("a binding table held what is no binding, which was removed", key=table, members=len(bad))


def _is_binding(member: bytes, separator: str) -> bool:
    try:
        return member.decode().count(separator) == 2
    except UnicodeDecodeError:
        return False


def mend(redis: Redis, expected: dict[str, str]) -> None:
    """Rename each key whose value is of another type than `expected`. One round trip if there is none. Raise RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        for key in expected:
            pipeline.type(key)
        found = dict(zip(expected, pipeline.execute(), strict=True))
    for key, kind in found.items():
        if kind.decode() not in {expected[key], "none"}:
            _set_aside(redis, key, expected[key])


def _set_aside(redis: Redis, key: str, expected: str) -> None:
    renamed = ASIDE + key

    def rename(pipeline: Any) -> bool:
        # Asked again under WATCH: by now it may be a good queue.
        if cast(bytes, pipeline.type(key)).decode() in {expected, "none"}:
            return False
        pipeline.multi()
        pipeline.rename(key, renamed)
        rejected.count(pipeline, "broker", "key type")
        return True

    if redis.transaction(cast(Any, rename), key, value_from_callable=True):
        log.warning("a key of the broker was of a wrong type and was renamed", key=key, expected=expected, renamed=renamed)
