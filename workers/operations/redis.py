"""How the picture and the counters reach the broker's Redis: as kombu finds it (URL, TLS, Sentinel), with short timeouts."""

from functools import cache
from typing import Any, cast

from kombu import Connection
from redis import Redis

# An answer takes a millisecond; a process that only wants to be seen must not wait for Redis.
SECONDS = 1.0


@cache
def client() -> Redis:
    """Return this process's client, which reconnects by itself. Raise kombu's OperationalError if Redis is away at first."""
    from workers.app import app

    timeouts = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, "retry_on_timeout": False}
    options = {**app.conf.broker_transport_options, **timeouts}
    connection = Connection(app.conf.broker_url, transport_options=options)
    connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    found: Redis = cast(Any, connection.channel()).client
    return found
