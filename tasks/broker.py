"""The ways to Redis that CELERY_BROKER_URL may name: what Celery, RedBeat and our own clients each need to be told of it."""

from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from settings import Settings, get_settings

SENTINEL_PORT = 26379
CLIENT_SECONDS = 5.0
# Of one sentinel: the next one is asked after that.
SENTINEL_SECONDS = 1.0


def transport_options(settings: Settings) -> dict[str, Any]:
    """Return what kombu must know beside the URL."""
    if not _is_sentinel(settings):
        return {}
    return {"master_name": settings.redis_sentinel_master, "sentinel_kwargs": _sentinel_kwargs(settings)}


def redbeat(settings: Settings) -> dict[str, Any]:
    """Return RedBeat's settings of its connection: the broker's own Redis."""
    options: dict[str, Any] = {"socket_timeout": 10}
    if not _is_sentinel(settings):
        options |= {"socket_connect_timeout": 5, "socket_keepalive": True}
        return {"redbeat_redis_url": settings.celery_broker_url, "redbeat_redis_options": options}
    first = urlsplit(_addresses(settings)[0])
    options |= {
        "sentinels": _sentinels(settings),
        "service_name": settings.redis_sentinel_master,
        "sentinel_kwargs": _sentinel_kwargs(settings),
        "username": unquote(first.username) if first.username else None,
        "password": unquote(first.password) if first.password else None,
        "db": _database(settings),
    }
    # RedBeat takes the sentinels from the options; of the URL only the scheme counts.
    return {"redbeat_redis_url": "redis-sentinel://", "redbeat_redis_options": options}


@cache
def shared(*, seconds: float) -> Redis:
    """Return this process's own client, made at first use; it reconnects by itself. Answers are bytes, within `seconds`."""
    return client(get_settings(), seconds=seconds, decode=False)


def client(settings: Settings, *, seconds: float = CLIENT_SECONDS, decode: bool = True) -> Redis:
    """Return a client of the broker's Redis, the present master where sentinels know it. Each answer may take `seconds`."""
    if not _is_sentinel(settings):
        return Redis.from_url(
            settings.celery_broker_url, socket_timeout=seconds, socket_connect_timeout=seconds, decode_responses=decode
        )
    first = urlsplit(_addresses(settings)[0])
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        _sentinels(settings),
        sentinel_kwargs=_sentinel_kwargs(settings),
        socket_timeout=seconds,
        username=unquote(first.username) if first.username else None,
        password=unquote(first.password) if first.password else None,
        db=_database(settings),
        socket_connect_timeout=seconds,
        decode_responses=decode,
    )
    master: Redis = sentinel.master_for(settings.redis_sentinel_master)  # type: ignore[no-untyped-call]
    return master


def _is_sentinel(settings: Settings) -> bool:
    return settings.celery_broker_url.startswith("sentinel://")


def _addresses(settings: Settings) -> list[str]:
    """Return the sentinels' URLs: kombu has them with semicolons between, the database behind the last."""
    return [address for address in settings.celery_broker_url.split(";") if address]


def _sentinels(settings: Settings) -> list[tuple[str, int]]:
    parts = [urlsplit(address) for address in _addresses(settings)]
    return [(part.hostname or "127.0.0.1", part.port or SENTINEL_PORT) for part in parts]


def _database(settings: Settings) -> int:
    return int(urlsplit(_addresses(settings)[-1]).path.strip("/") or 0)


def _sentinel_kwargs(settings: Settings) -> dict[str, Any]:
    """Return what each sentinel is asked with. redis-py would wait for a hanging one without end, or ask it ten times over."""
    password = settings.redis_sentinel_password
    return {
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        **({"password": password.get_secret_value()} if password else {}),
    }
