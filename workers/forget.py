"""Forget one person: what the workers keep of a recipient or uploader, table by table and key by key of Redis.

docs/security.md says of each table and key what it holds of people; tests/retention/test_forget.py compares it with these.
"""

import math
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from redis import Redis
from sqlalchemy import Engine, text

from db.batches.count import count
from db.batches.target import ID, Key, Target
from db.batches.throttle import Throttle
from db.batches.walk import Limits, walk
from db.locks import hold
from settings import get_settings
from tasks.notifications.journal import DEAD_DEVICES, MOST_EVENTS
from tasks.notifications.withdrawal import HELD, WITHDRAWN
from tasks.pause import RESTORE, paused
from tasks.retention import rules
from tasks.retention.policies import ATTACHMENT_ID, OF_RECIPIENT, POLICIES

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
    "worker_dead_devices": ("recipient_id = {id}", OF_RECIPIENT),
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
# Days from one backup of a tier, and its rotation, to the next; and until one is made which may hold a dump of today: a week's
# archive seals those of seven days, and a month's shipment takes an archive of up to seven days before it.
TIERS = {"daily": (1, 0), "weekly": (7, 7), "monthly": (31, 14)}
SHIPPED = {"monthly": ["monthly"], "weekly": ["monthly", "weekly"], "daily": [*TIERS]}


def forget(engine: Engine, redis: Redis, person: int, stop: Callable[[], bool] | None) -> dict[str, int]:
    """Delete what is kept of a person, a batch at a time until `stop` says so; without one, count it. Return how much by where.

    Raise LockedError while another does so, and RuleError while a restore has not brought all rows back: theirs would go.
    """

    def halt() -> str | None:
        return rules.RESTORING if RESTORE in paused(engine) else "stopped" if stop and stop() else None

    if stop and halt() == rules.RESTORING:
        raise rules.RuleError(f"{rules.RESTORING}: nothing is forgotten until it is done, and its pause is over")
    settings, found = get_settings(), dict[str, int]()
    limits = Limits(sys.maxsize, math.inf, BATCH_ROWS, settings.batches_seconds, settings.batches_rest)
    with Throttle.of(settings) as throttle, hold(engine, "forget") as lock:
        for table, (predicate, key) in TABLES.items():
            target = Target(table, predicate.format(id=person), key)
            if stop is None:
                found[table] = count(engine, target, None, "1", seconds=math.inf).rows
            else:
                walked = walk(engine, target, None, limits, lock, throttle, halt=halt)
                found[table] = walked.rows
    events = cast(list[tuple[bytes, dict[bytes, bytes]]], redis.xrange(STREAM, count=2 * MOST_EVENTS))
    his = [event for event, told in events if told.get(b"recipient_id") == str(person).encode()]
    found[STREAM] = int(redis.xdel(STREAM, *his)) if stop and his else len(his)
    for prefix in KEYS:
        found[prefix] = (redis.delete if stop else redis.exists)(f"{prefix}{person}")
    return found


def elsewhere(engine: Engine) -> list[dict[str, Any]]:
    """Return what may hold a person and is not rewritten, and when the last of what there is now will be gone (None: never)."""
    settings = get_settings()
    tiers = list[str]() if settings.backup_s3_uri is None else SHIPPED[settings.backup_s3_ship]
    kept = dict[str, timedelta | None]()
    for tier, (every, sealed) in TIERS.items():
        keep, locked = getattr(settings, f"backup_keep_{tier}"), settings.backup_s3_lock_days if tier in tiers else 0
        kept[f"{tier} backups"] = timedelta(days=sealed + max(every * keep, locked) + every) if keep else None
    with engine.connect() as connection:
        for what, policy in (("uploads in quarantine", "quarantine"), ("files of retention's archives", "archives")):
            rule = rules.read(connection, POLICIES[policy])
            kept[what] = rule.age if rule.enabled else None
        now = connection.execute(text("SELECT NOW()")).scalar_one()
    return [{"what": what, "gone": now + age if age else None} for what, age in kept.items()]
