"""Find rows that a claim cannot see: create the missing ledger entry, and release rows whose wait has lost its cause."""

import orjson
from sqlalchemy import Connection, Engine, text

from db.transactions import transact
from tasks.notifications.notification import IDENTITY
from tasks.notifications.settlement import GAVE_UP

# FAILED rows that have no entry: the API's own, or from before the workers. Newest first, by the index on delivery_status,
# a page at a time until a page is older than 24 h: a million old FAILED rows are never read.
STRAYS = text(f"""
    SELECT n.id, n.created_at > NOW() - INTERVAL 24 HOUR AS young,
           d.notification_id IS NULL AND COALESCE(n.error_message, '') NOT LIKE '{GAVE_UP}%' AS stray
    FROM chat_notifications n LEFT JOIN worker_deliveries d ON d.notification_id = n.id
    WHERE n.delivery_status = 'FAILED' AND n.id < :before ORDER BY n.id DESC LIMIT :rows
""")  # noqa: S608 - a constant of this project
ADOPT = f"""
    INSERT IGNORE INTO worker_deliveries (notification_id, due_at, reason, identity)
    SELECT n.id, NOW(3), 'adopted', {IDENTITY}
    FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id BIGINT PATH '$')) AS strays
    STRAIGHT_JOIN chat_notifications n ON n.id = strays.id WHERE n.delivery_status = 'FAILED'
"""  # noqa: S608 - a constant of this project
# The lanes in use, and rows that none of them would bring back: by idx_due (waiting_on, due_at).
LANES = text("SELECT waiting_on FROM worker_deliveries GROUP BY waiting_on")
FREE_LANE = text("""
    UPDATE worker_deliveries SET waiting_on = ''
    WHERE waiting_on = :waiting_on AND due_at < NOW(3) - INTERVAL :hours HOUR LIMIT 1000
""")
BEFORE_ALL = 2**62


def free_stuck_lanes(engine: Engine, providers: list[str]) -> None:
    """Release rows that wait for a provider which is no longer configured, or that have waited out their 24 h."""

    def free(connection: Connection) -> None:
        waited_for = {row.waiting_on for row in connection.execute(LANES)}
        for provider in waited_for - {""}:
            hours = 24 if provider in providers else 0
            connection.execute(FREE_LANE, {"waiting_on": provider, "hours": hours})

    transact(engine, free)


def adopt_strays(engine: Engine, *, page: int = 1000) -> int:
    """Enter FAILED rows younger than 24 h that no worker knows of, so that they are retried; return how many."""
    adopted, before = 0, BEFORE_ALL
    while True:
        with engine.connect() as connection:
            rows = connection.execute(STRAYS, {"before": before, "rows": page}).all()
        ids = [row.id for row in rows if row.young and row.stray]
        if ids:
            transact(engine, lambda connection, ids=ids: connection.execute(text(ADOPT), {"ids": orjson.dumps(ids).decode()}))  # type: ignore[misc]
            adopted += len(ids)
        if len(rows) < page or not any(row.young for row in rows):
            return adopted
        before = rows[-1].id
