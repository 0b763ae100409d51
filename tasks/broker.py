"""Connect to Redis: turn CELERY_BROKER_URL (redis, rediss, sentinel) into options for Celery, and into clients for all else."""

from functools import cache
from typing import Any

import redis
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from settings import Settings, get_settings, parse_broker

CLIENT_SECONDS = 5.0
# Of one sentinel: the next one is asked after that.
SENTINEL_SECONDS = 1.0


def of_sentinels(settings: Settings) -> dict[str, Any]:
    """Return what kombu must know beside the URL of sentinels; nothing of another's."""
    if parse_broker(settings.celery_broker_url).scheme != "sentinel":
        return {}
    return {"master_name": settings.redis_sentinel_master, "sentinel_kwargs": _sentinel_kwargs(settings)}


@cache
def shared(*, seconds: float) -> Redis:
    """Return this process's own client, made at first use; it reconnects by itself. Answers are bytes, within `seconds`."""
    return client(get_settings(), seconds=seconds, decode=False)


def client(settings: Settings, *, seconds: float = CLIENT_SECONDS, decode: bool = True) -> Redis:
    """Return a client of the broker's Redis, the present master where sentinels know it. Each answer may take `seconds`."""
    broker = parse_broker(settings.celery_broker_url)
    options: dict[str, Any] = {
        "username": broker.username,
        "password": broker.password,
        "db": broker.database,
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        # As redis-py's own, which would also ask a Redis that hangs ten times over.
        "retry": Retry(ExponentialWithJitterBackoff(cap=1, base=0.01), 10, (redis.ConnectionError,)),
        "decode_responses": decode,
    }
    if broker.scheme != "sentinel":
        ((host, port),) = broker.hosts
        return Redis(host=host, port=port, ssl=broker.scheme == "rediss", **broker.tls, **options)
    sentinel = Sentinel(broker.hosts, sentinel_kwargs=_sentinel_kwargs(settings), **options)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(settings.redis_sentinel_master)  # type: ignore[no-untyped-call]
    return master


def _sentinel_kwargs(settings: Settings) -> dict[str, Any]:
    """Return what each sentinel is asked with. redis-py would wait for a hanging one without end, or ask it ten times over."""
    password = settings.redis_sentinel_password
    return {
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
        "retry": None,
        **({"password": password.get_secret_value()} if password else {}),
    }
