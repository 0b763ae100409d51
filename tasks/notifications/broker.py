"""The broker's Redis, for the little that push delivery does there beside Celery. Nothing depends on it for correctness."""

from functools import cache
from typing import Any, cast

from kombu import Connection
from redis import Redis

from settings import get_settings


@cache
def client() -> Redis:
    """Return the broker's Redis as kombu finds it: by URL, TLS or Sentinel. It reconnects by itself."""
    timeouts = {"socket_timeout": 2, "socket_connect_timeout": 2}
    connection = Connection(get_settings().celery_broker_url, transport_options=timeouts)
    redis: Redis = cast(Any, connection.channel()).client
    return redis
