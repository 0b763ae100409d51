"""The outbox: an event is written into `worker_events` by the transaction that causes it; tasks/events brings it to others."""

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import Connection, text

from db.rows import json_arrays

Type = (
    Literal["device.dead", "attachment.blocked", "attachment.freed", "backup.done", "backup.failed"]
    | Literal["retention.done", "retention.failed", "breaker.opened", "breaker.closed"]
)

EMIT = text("""
    INSERT INTO worker_events (type, data)
    SELECT :type, data FROM JSON_TABLE(:events, '$[*]' COLUMNS (data JSON PATH '$')) AS events
""")


# JavaScript rounds what is greater, and then finds another signature.
GREATEST = 2**53 - 1


def emit(connection: Connection, kind: Type, *events: Mapping[str, object]) -> None:
    """Write events of one type. No secret and no content is in them: a device goes by its key, a file by its row's id."""
    for array in json_arrays({name: _told(value) for name, value in event.items()} for event in events):
        connection.execute(EMIT, {"type": kind, "events": array})


def _told(value: object) -> object:
    return str(value) if isinstance(value, int) and abs(value) > GREATEST else value
