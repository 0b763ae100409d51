"""Forget one person: what the workers keep of a recipient or uploader, table by table and key by key of Redis.

docs/security.md says of each table and key what it holds of people; tests/retention/test_forget.py compares it with these.
"""

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any, cast

from redis import Redis
from sqlalchemy import Connection, Engine, text

from db.batches.count import count
from db.batches.place import start
from db.batches.target import ID, Key, Target
from db.batches.throttle import Throttle
from db.batches.walk import Limits, walk
from db.locks import hold
from settings import ConfigurationError, get_settings
from tasks.notifications.journal import DEAD_DEVICES, MOST_EVENTS
from tasks.notifications.withdrawal import HELD, WITHDRAWN
from tasks.retention import files, ledger, rules
from tasks.retention.files import Files
from tasks.retention.policies import ATTACHMENT_ID, DIED_AT, POLICIES

# An entry from before there were identities is his whose row it is, while the row is there.
RECIPIENT = """(SUBSTRING_INDEX(identity, ' ', 1) = '{id}' OR identity = '' AND EXISTS (
    SELECT 1 FROM chat_notifications n WHERE n.id = notification_id AND n.recipient_id = {id}))"""
UPLOADER = "SUBSTRING_INDEX(SUBSTRING_INDEX(of_row, ' ', 2), ' ', -1) = '{id}'"
TOLD = "JSON_UNQUOTE(JSON_EXTRACT(data, '{}'))"
# What is still to be sent, or served, needs its record: it goes when the API has deleted the row.
SETTLED = """NOT EXISTS (SELECT 1 FROM chat_notifications n
    WHERE n.id = notification_id AND n.delivery_status IN ('PENDING', 'FAILED'))"""
GONE = "NOT EXISTS (SELECT 1 FROM message_attachments a WHERE a.id = attachment_id)"
TABLES = {
    "worker_dead_devices": ("recipient_id = {id}", DIED_AT),
    "worker_delivery_history": (RECIPIENT, ID),
    "worker_deliveries": (f"{RECIPIENT} AND {SETTLED}", Key("notification_id", 1, 20_000)),
    "worker_scan_events": (f"{UPLOADER} AND {GONE}", ID),
    "worker_events": (
        f"{TOLD.format('$.recipient_id')} = '{{id}}' OR {UPLOADER.replace('of_row', TOLD.format('$.of_row'))}",
        ID,
    ),
    "worker_scans": (f"{UPLOADER} AND {GONE} AND lease IS NULL AND quarantine IN ('', 'missing')", ATTACHMENT_ID),
}
STREAM, KEYS = DEAD_DEVICES, (WITHDRAWN, HELD)
BATCH_ROWS = 5000

# By idx_job; what was shipped is as old as its run.
DUMPS = text("""
    SELECT COUNT(*) AS number, MAX(ended_at) AS newest FROM worker_backup_runs
    WHERE outcome = 'done' AND (job = :tier OR job = 'ship' AND tier = :tier) AND ended_at > NOW() - INTERVAL :days DAY
""")
# By idx_verdict: few are infected.
COPIES = f"""
    SELECT COUNT(*) AS number, MAX(scanned_at) AS newest FROM worker_scans
    WHERE verdict = 'infected' AND quarantine LIKE '%://%' AND {UPLOADER}
"""  # noqa: S608 - a constant of this module


def forget(engine: Engine, redis: Redis, person: int, stop: Callable[[], bool] | None) -> dict[str, int]:
    """Delete what is kept of a person, a batch at a time until `stop` says so; without one, count it. Return how much by where.

    Raise LockedError while another does so.
    """
    settings, found = get_settings(), dict[str, int]()
    limits = Limits(sys.maxsize, math.inf, BATCH_ROWS, settings.batches_seconds, settings.batches_rest)
    throttle = Throttle.from_urls(
        settings.batches_most_running, settings.batches_most_lag_seconds, settings.batches_replica_urls
    )
    with closing(throttle), hold(engine, "forget") as lock:
        for table, (predicate, key) in TABLES.items():
            target = Target(table, predicate.format(id=person), key)
            place = start(engine, target, None)
            if stop is None:
                found[table] = count(engine, target, place, "1", seconds=math.inf).rows
            else:
                walked = walk(engine, target, place, limits, lock, throttle, halt=lambda: "stopped" if stop() else None)
                found[table] = walked.progress.rows
    events = cast(list[tuple[bytes, dict[bytes, bytes]]], redis.xrange(STREAM, count=2 * MOST_EVENTS))
    his = [event for event, told in events if told.get(b"recipient_id") == str(person).encode()]
    found[STREAM] = int(redis.xdel(STREAM, *his)) if stop and his else len(his)
    for prefix in KEYS:
        found[prefix] = (redis.delete if stop else redis.exists)(f"{prefix}{person}")
    return found


def elsewhere(engine: Engine, person: int) -> list[dict[str, Any]]:
    """Return what may hold a person and is not rewritten: how much there is, the newest, and when it is gone (None: never)."""
    settings, found = get_settings(), list[dict[str, Any]]()

    def add(what: str, there: Sequence[Any], kept: timedelta | None) -> None:
        number, newest = there
        if number:
            found.append({"what": what, "number": number, "newest": newest, "gone": newest + kept if kept else None})

    with engine.connect() as connection:
        keep = (settings.backup_keep_daily, 7 * settings.backup_keep_weekly, 31 * settings.backup_keep_monthly)
        for tier, days in zip(("daily", "weekly", "monthly"), keep, strict=True):
            dumps = connection.execute(DUMPS, {"tier": tier, "days": days or 36_500}).one()
            add(f"{tier} backups, all in all", dumps, timedelta(days=days) or None)
        add("uploads in quarantine", connection.execute(text(COPIES.format(id=person))).one(), _kept(connection, "quarantine"))
        archives, now = cast(Files, POLICIES["archives"].target), ledger.cutoff(connection, timedelta(days=-1))
        with suppress(ConfigurationError):
            there = files.count(archives, now)
            add("files of retention's archives, all in all", (there.rows, there.newest), _kept(connection, "archives"))
    return found


def _kept(connection: Connection, policy: str) -> timedelta | None:
    now = rules.read(connection, POLICIES[policy])
    return now.age if now.enabled else None
