"""Play failed notifications again: which rows would go, and making them PENDING."""

from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, text

from db.rows import dicts
from db.transactions import transact, write_rows
from tasks.notifications.queue import LOCK
from tasks.notifications.sweep import YOUNG

# Rows to play again: settled without success, young enough to be sent, and with no entry that would bring them back anyway.
# Among the newest of their status, by the index on it: more than fail in 24 h, and no more than a look of a second.
REPLAYABLE = text(f"""
    SELECT n.id, n.delivery_status AS status, LEFT(n.error_message, 2000) AS why
    FROM (SELECT id FROM chat_notifications IGNORE INDEX (PRIMARY)
          WHERE delivery_status = :status ORDER BY id DESC LIMIT 100000) AS newest
    JOIN chat_notifications n ON n.id = newest.id
    WHERE {YOUNG} AND LOCATE(:reason, COALESCE(n.error_message, ''))
      AND NOT EXISTS (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = n.id)
    ORDER BY n.id DESC LIMIT :rows
""")  # noqa: S608 - a constant of this project
WITHOUT_ENTRY = text("""
    SELECT id FROM chat_notifications n FORCE INDEX (PRIMARY)
    WHERE id IN :ids AND NOT EXISTS (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = n.id)
""")
REPLAY = text("""
    UPDATE chat_notifications FORCE INDEX (PRIMARY) SET delivery_status = 'PENDING', error_message = NULL WHERE id IN :ids
""")
REPLAY_BATCH = 500


def replayable(engine: Engine, *, status: str, reason: str, limit: int) -> list[dict[str, Any]]:
    """Return up to `limit` rows of a status (FAILED or BOUNCED) whose error_message contains `reason`, newest first.

    Rows older than 24 h are left out: they would be given up again. Those of an unknown age would not.
    """
    with engine.connect() as connection:
        return dicts(connection, REPLAYABLE, status=status, reason=reason, rows=limit)


def replay(engine: Engine, ids: list[int], status: str) -> int:
    """Make these rows PENDING again if they still have that status and no one holds them; return how many were."""

    def write(connection: Connection, batch: list[int]) -> int:
        free = connection.execute(LOCK, {"ids": batch, "status": status}).scalars().all()
        free = connection.execute(WITHOUT_ENTRY, {"ids": free}).scalars().all() if free else []
        return len(write_rows(connection, REPLAY, free))

    changed = 0
    for start in range(0, len(ids), REPLAY_BATCH):
        changed += transact(engine, partial(write, batch=ids[start : start + REPLAY_BATCH]))
    return changed
