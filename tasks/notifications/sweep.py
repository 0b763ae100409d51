"""Find rows that a claim cannot see: give them the status or the entry that they lack, and release what waits for nothing."""

from sqlalchemy import Connection, Engine, text

from db.identity import ABOVE_ALL
from db.transactions import transact, write_rows
from tasks.notifications.notification import IDENTITY
from tasks.notifications.settlement import GAVE_UP

# Rows that an INSERT gave no status, newest first, by the index on delivery_status; those that the API holds are left to later.
# A column that was added without a default leaves a million of them, of which each tick enters so many.
ENTERED = 5000
WITHOUT_STATUS = text(f"""
    SELECT id FROM chat_notifications IGNORE INDEX (PRIMARY)
    WHERE delivery_status IS NULL ORDER BY id DESC LIMIT {ENTERED} FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a number of ours
# A row that was sent before it had a status is not sent again.
ENTER = text("""
    UPDATE chat_notifications FORCE INDEX (PRIMARY) SET delivery_status = IF(is_sent, 'SENT', 'PENDING')
    WHERE id IN :ids
""")
# True unless a row is known to be older than 24 h: NULL, a date of zeros and the future say nothing of its age.
YOUNG = "NOT COALESCE(n.created_at BETWEEN '1970-01-02' AND NOW() - INTERVAL 24 HOUR, 0)"
# FAILED rows that have no entry: the API's own, or from before the workers. Newest first, by the index on delivery_status,
# a page at a time until a page holds none that is recent or a stray: a million old FAILED rows are never read.
STRAYS = text(f"""
    SELECT n.id, {YOUNG} AS young, n.created_at BETWEEN NOW() - INTERVAL 24 HOUR AND NOW() AS recent,
           d.notification_id IS NULL AND COALESCE(n.error_message, '') NOT LIKE '{GAVE_UP}%' AS stray
    FROM chat_notifications n LEFT JOIN worker_deliveries d ON d.notification_id = n.id
    WHERE n.delivery_status = 'FAILED' AND n.id < :before ORDER BY n.id DESC LIMIT :rows
""")  # noqa: S608 - a constant of this project
ADOPT = text(f"""
    INSERT IGNORE INTO worker_deliveries (notification_id, due_at, reason, identity)
    SELECT n.id, NOW(3), 'adopted', {IDENTITY}
    FROM chat_notifications n FORCE INDEX (PRIMARY) WHERE n.id IN :ids AND n.delivery_status = 'FAILED'
""")  # noqa: S608 - a constant of this project
# The lanes in use, and rows that none of them would bring back: by idx_due (waiting_on, due_at).
LANES = text("SELECT waiting_on FROM worker_deliveries GROUP BY waiting_on")
FREE_LANE = text("""
    UPDATE worker_deliveries SET waiting_on = ''
    WHERE waiting_on = :waiting_on AND due_at < NOW(3) - INTERVAL :hours HOUR LIMIT 1000
""")


def enter_queue(engine: Engine) -> int:
    """Make rows PENDING whose delivery_status is NULL, or SENT if they are, ENTERED at most; return how many."""

    def enter(connection: Connection) -> int:
        ids = connection.execute(WITHOUT_STATUS).scalars().all()
        return len(write_rows(connection, ENTER, ids))

    return transact(engine, enter)


def free_stuck_lanes(engine: Engine, providers: list[str]) -> None:
    """Release rows that wait for a provider which is no longer configured, or that have waited out their 24 h."""

    def free(connection: Connection) -> None:
        waited_for = {row.waiting_on for row in connection.execute(LANES)}
        for provider in waited_for - {""}:
            hours = 24 if provider in providers else 0
            connection.execute(FREE_LANE, {"waiting_on": provider, "hours": hours})

    transact(engine, free)


def adopt_strays(engine: Engine, *, page: int = 1000) -> int:
    """Enter FAILED rows that are not known to be older than 24 h and that no worker knows of; return how many."""
    adopted, before = 0, ABOVE_ALL
    while True:
        with engine.connect() as connection:
            rows = connection.execute(STRAYS, {"before": before, "rows": page}).all()
        ids = [row.id for row in rows if row.young and row.stray]
        if ids:
            transact(engine, lambda connection, ids=ids: connection.execute(ADOPT, {"ids": ids}))  # type: ignore[misc]
            adopted += len(ids)
        if len(rows) < page or not (ids or any(row.recent for row in rows)):
            return adopted
        before = rows[-1].id
