"""Redis: reachable, recent, evicting nothing, keeping what it is given, with room, and its clock."""

import time
from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from tasks import broker
from workers.doctor.report import Answer, Host, ok, wrong
from workers.operations.fleet import MOST_SKEW_SECONDS

OLDEST = (6, 2)
FULLEST = 0.8
AS_ADMIN = "as Redis' administrator run: redis-cli"


def redis(host: Host) -> Iterator[Answer]:
    """Look at CELERY_BROKER_URL, by INFO: CONFIG is often forbidden."""
    try:
        with broker.client(host.settings, decode=False) as client:
            info: dict[str, Any] = client.info()
            if tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]) < OLDEST:
                yield wrong(f"it is {server(info)}; upgrade it to {OLDEST[0]}.{OLDEST[1]} or newer")
                return
            if info["role"] != "master":
                yield wrong("it is a read-only replica; let CELERY_BROKER_URL name the master, or use sentinel://")
                return
            yield ok(f"{server(info)}, never evicting, append-only")
            yield from _settings(info)
            yield from _replay(client)
            seconds, microseconds = client.time()
            skew = seconds + microseconds / 1e6 - time.time()
            if abs(skew) > MOST_SKEW_SECONDS:
                yield wrong(f"its clock is {skew:+.1f} s off this host's; have both follow NTP (chronyc tracking)")
    except (RedisError, OSError) as error:
        yield wrong(f"CELERY_BROKER_URL cannot be used: {error}; see that it runs, its address, user, password and authority")


def server(info: dict[str, Any]) -> str:
    """Return whose server it is, and its version. Valkey calls itself Redis 7.2.4, for clients that know only Redis."""
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


def _settings(info: dict[str, Any]) -> Iterator[Answer]:
    if (policy := info.get("maxmemory_policy")) != "noeviction":
        yield wrong(
            f"when full it throws keys away ({policy}), messages and beat's lock among them; set it in redis.conf too, and"
            f" {AS_ADMIN} CONFIG SET maxmemory-policy noeviction"
        )
    if not info.get("aof_enabled"):
        yield wrong(
            "the append-only file is off: a restart loses messages and beat's times; set it in redis.conf too, and"
            f" {AS_ADMIN} CONFIG SET appendonly yes"
        )
    elif {info.get("aof_last_write_status", "ok"), info.get("aof_last_bgrewrite_status", "ok")} != {"ok"}:
        yield wrong("the last write of its append-only file failed; look at its log and its disk")
    used, most = int(info["used_memory"]), int(info.get("maxmemory") or info.get("total_system_memory") or 0)
    if used > FULLEST * most > 0:
        yield wrong(
            f"{used / 1e6:,.0f} of {most / 1e6:,.0f} MB are full, and when all are it takes no message; raise maxmemory"
        )


def _replay(client: Redis) -> Iterator[Answer]:
    """Ask whether a restart keeps transactions: Redis replays those of its append-only file with the rights of `default`."""
    try:
        said = client.execute_command("ACL", "DRYRUN", "default", "HSET", "unacked", "tag", "message")  # type: ignore[no-untyped-call]
    except ResponseError as error:  # older than 7.0, or this user may not ask
        yield "not tried", f"whether a restart keeps transactions (user default): {error}"
        return
    if said not in ("OK", b"OK"):
        yield wrong(
            "a restart loses what lies in transactions, messages under way and beat's times: they are replayed as user default,"
            f" who lacks the rights; {AS_ADMIN} ACL SETUSER default off resetpass '~*' '&*' +@all && redis-cli ACL SAVE"
        )
