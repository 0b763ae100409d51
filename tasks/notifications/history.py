"""The history of one notification: the attempts and answers for each device, and the next try."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, text

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
DEAD = text("SELECT device_key, died_at FROM worker_dead_devices WHERE device_key IN :keys")


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
    dead = {row["device_key"]: row["died_at"] for row in dicts(connection, DEAD, keys=keys)} if keys else {}
    waiting = entries[0] if entries else None
    ledger = orjson.loads(waiting.pop("devices") or "{}") if waiting else {}
    for row in settled:
        row["devices"] = orjson.loads(row["devices"] or "{}")
    # A row that was played again and then went smoothly has no later entry: the last one is about the time before.
    last = settled[-1]["devices"] if settled and settled[-1]["status"] == notification["delivery_status"] else {}
    others = ("sent", 1, "") if notification["delivery_status"] == "SENT" else ("not tried", 0, "")
    known = last | ledger
    devices = [{"device": key, **_device(known.get(key, others)), "dead_since": dead.get(key)} for key in keys]
    return History(notification, devices, waiting, settled)


def _device(entry: Sequence[Any]) -> dict[str, Any]:
    """Return what a ledger's entry says, or one of the history, which has no time of the next try."""
    state, attempts, *due, reason = entry[:4]
    at = datetime.fromtimestamp(due[0], UTC) if due and due[0] and state == "waiting" else None
    return {"state": state, "attempts": attempts, "due": at, "reason": reason}
