"""The history of one notification: the attempts and answers for each device, and the next try."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, text

from db.rows import dicts
from tasks.notifications.devices import COLUMN, read_devices
from tasks.notifications.notification import ENTRIES, IDENTITY

NOTIFICATION = text(f"""
    SELECT id, conversation_id, message_id, recipient_id, sender_id, notification_type, is_sent, is_read, sent_at, read_at,
           delivery_status, error_message, created_at,
           {COLUMN} AS device_tokens
    FROM chat_notifications WHERE id = :id
""")  # noqa: S608 - a constant of this project
ENTRY = text(f"""
    SELECT d.lease, d.due_at, d.waiting_on, d.claims, d.reason, d.devices FROM {ENTRIES} WHERE d.notification_id = :id
""")  # noqa: S608 - a constant of this project
SETTLED = text(f"""
    SELECT h.settled_at, h.status, h.reason, h.devices
    FROM worker_delivery_history h JOIN chat_notifications n ON n.id = h.notification_id AND h.identity IN ('', {IDENTITY})
    WHERE h.notification_id = :id ORDER BY h.id LIMIT 100
""")  # noqa: S608 - a constant of this project
DEAD = text("""
    SELECT device_key, died_at, reason FROM worker_dead_devices WHERE device_key IN :keys
""").bindparams(bindparam("keys", expanding=True))


@dataclass(frozen=True, slots=True)
class History:
    """All that is known of one row; devices by their keys, never by token, and no content."""

    notification: dict[str, Any]
    devices: list[dict[str, Any]]
    waiting: dict[str, Any] | None
    history: list[dict[str, Any]]
    """One entry for each time that it was settled with problems."""


def history(connection: Connection, notification_id: int) -> History | None:
    """Return the history of a row, None where there is no such row."""
    found = dicts(connection, NOTIFICATION, id=notification_id)
    if not found:
        return None
    notification = found[0]
    read = read_devices(notification.pop("device_tokens"))
    entries = dicts(connection, ENTRY, id=notification_id)
    settled = dicts(connection, SETTLED, id=notification_id)
    keys = [device.key for device in read.usable]
    dead = {row["device_key"]: row for row in dicts(connection, DEAD, keys=keys)} if keys else {}
    waiting = entries[0] if entries else None
    ledger = orjson.loads(waiting.pop("devices") or "{}") if waiting else {}
    for row in settled:
        row["devices"] = orjson.loads(row["devices"] or "{}")
    # A row that was played again and then went smoothly has no later entry: the last one is about the time before.
    last = settled[-1]["devices"] if settled and settled[-1]["status"] == notification["delivery_status"] else {}
    return History(notification, [_device(key, ledger, last, dead, notification) for key in keys], waiting, settled)


def _device(
    key: str, ledger: dict[str, Any], last: dict[str, Any], dead: dict[str, Any], notification: dict[str, Any]
) -> dict[str, Any]:
    state, attempts, reason, due = "not tried", 0, "", None
    if key in ledger:
        state, attempts, due, reason, *_ = ledger[key]
    elif key in last:
        state, attempts, reason = last[key]
    elif notification["delivery_status"] == "SENT":
        state, attempts = "sent", 1
    return {
        "device": key,
        "state": state,
        "attempts": attempts,
        "due": datetime.fromtimestamp(due, UTC) if due and state == "waiting" else None,
        "reason": reason,
        "dead_since": dead[key]["died_at"] if key in dead else None,
    }
