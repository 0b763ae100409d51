"""Redis: reachable, recent enough, evicting nothing, keeping what it is given, with room, and ours alone."""

import time
from collections.abc import Iterator
from typing import Any

from redis.exceptions import RedisError

from tasks import broker
from tasks.jobs import QUEUES
from workers.doctor.report import Finding, Question, ok, wrong

OLDEST = (6, 2)
MOST_SKEW_SECONDS = 2.0
FULLEST = 0.8
MOST_CLIENTS = 0.8
# Exchanges and queues that Celery itself makes for every app.
CELERYS_OWN = ("celeryev", "celery.pidbox", "reply.celery.pidbox")
MOST_KEYS = 200_000
BINDING = "_kombu.binding."


def redis(question: Question) -> Iterator[Finding]:
    """Find out about CELERY_BROKER_URL, by INFO alone: CONFIG is often forbidden."""
    try:
        with broker.client(question.settings) as client:
            began = time.monotonic()
            info: dict[str, Any] = client.info()
            spent = time.monotonic() - began
            version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
            if version < OLDEST:
                yield wrong("redis", f"is {info['redis_version']}; upgrade it to {OLDEST[0]}.{OLDEST[1]} or newer")
                return
            if info["role"] != "master":
                yield wrong("redis", "is a read-only replica; let CELERY_BROKER_URL name the master, or use sentinel://")
                return
            yield ok("redis", f"{info['redis_version']}, answered in {spent * 1000:.0f} ms")
            yield _eviction(info)
            yield _persistence(info)
            yield _memory(info)
            yield _clients(info)
            yield _clock(client.time())
            yield _neighbours(client)
    except (RedisError, OSError) as error:
        yield wrong("redis", f"CELERY_BROKER_URL cannot be used: {error}; see that it runs, and its address, user and password")


def _eviction(info: dict[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        return wrong(
            "redis eviction",
            f"when full it throws keys away ({policy}), messages and beat's lock among them; run:"
            " redis-cli CONFIG SET maxmemory-policy noeviction, and set it in redis.conf",
        )
    return ok("redis eviction", "noeviction")


def _persistence(info: dict[str, Any]) -> Finding:
    if not info.get("aof_enabled"):
        return wrong(
            "redis persistence",
            "the append-only file is off: a restart loses messages and beat's times; run: redis-cli CONFIG SET appendonly yes,"
            " and set it in redis.conf",
        )
    if info.get("aof_last_write_status", "ok") != "ok" or info.get("aof_last_bgrewrite_status", "ok") != "ok":
        return wrong("redis persistence", "the last write of the append-only file failed; look at Redis' log and its disk")
    return ok("redis persistence", "append-only file, last written well")


def _memory(info: dict[str, Any]) -> Finding:
    used, most = int(info["used_memory"]), int(info.get("maxmemory") or 0)
    room = most or int(info.get("total_system_memory") or 0)
    share = used / room if room else 0.0
    text = f"{used / 1e6:,.0f} MB of {room / 1e6:,.0f} MB" + ("" if most else ", the machine's; maxmemory is not set")
    if share > FULLEST:
        return wrong(
            "redis memory", f"{text}: when it is full no message is taken; look at the queues' lengths, or give it more"
        )
    return ok("redis memory", text)


def _clients(info: dict[str, Any]) -> Finding:
    connected, most = int(info["connected_clients"]), int(info.get("maxclients") or 10_000)
    if connected > MOST_CLIENTS * most:
        return wrong("redis clients", f"{connected} of maxclients {most} are connected; raise maxclients")
    return ok("redis clients", f"{connected} of {most}")


def _clock(told: tuple[int, int]) -> Finding:
    skew = told[0] + told[1] / 1e6 - time.time()
    if abs(skew) > MOST_SKEW_SECONDS:
        which = "ahead of" if skew > 0 else "behind"
        return wrong("redis clock", f"it is {abs(skew):.1f} s {which} this host's; have both follow NTP (chronyc tracking)")
    return ok("redis clock", f"{abs(skew) * 1000:.0f} ms apart from this host's")


def _neighbours(client: Any) -> Finding:
    """Say whose queues are in the database besides ours: the shortest visibility timeout of all its apps holds for all."""
    ours = {*QUEUES, *CELERYS_OWN}
    if client.dbsize() > MOST_KEYS:
        return ok("redis neighbours", f"not looked for: there are more than {MOST_KEYS:,} keys")
    keys = {str(key).removeprefix(BINDING) for key in client.scan_iter(match=f"{BINDING}*", count=1000)}
    others = sorted(key for key in keys if key not in ours and not key.endswith(".pidbox"))
    if others:
        return wrong(
            "redis neighbours",
            f"another Celery app uses this database too (queues: {', '.join(others[:5])}); the shorter visibility timeout"
            " decides when Redis hands out our long tasks again: give the workers a database number of their own",
        )
    return ok("redis neighbours", "no other Celery app is seen in this database")
