"""What to do when a key of the broker holds another type of value than kombu puts there: someone ran SET on a queue.

Each command on such a key fails, so a worker would reconnect for ever. The value is renamed, not deleted.
"""

from typing import Any, cast

import structlog
from redis import Redis
from redis.exceptions import ResponseError

from workers.celery_config import QUEUES
from workers.messages import rejected

log = structlog.get_logger(__name__)

ASIDE = "chat-workers:messages:wrong-type:"


def is_wrong_type(error: ResponseError) -> bool:
    """Return whether this is Redis's answer to a command on a value of another type, alone or in a pipeline."""
    return "WRONGTYPE" in str(error)


def expected_types(channel: Any) -> dict[str, str]:
    """Return the type of each key that kombu keeps for our queues, as the channel names them."""
    return {
        **{channel._q_for_pri(queue, step): "list" for queue in QUEUES for step in channel.priority_steps},
        **{channel.keyprefix_queue % queue: "set" for queue in QUEUES},
        channel.unacked_key: "hash",
        channel.unacked_index_key: "zset",
        channel.unacked_mutex_key: "string",
    }


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
