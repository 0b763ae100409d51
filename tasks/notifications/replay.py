"""Play failed notifications again: which rows would go, and making them PENDING."""

from typing import Any

from sqlalchemy import Engine, bindparam, text

from db.rows import dicts
from db.transactions import transact
from tasks.notifications.sweep import YOUNG

# Rows to play again: settled without success, young enough to be sent, and with no entry that would bring them back anyway.
# By the index on delivery_status, newest first; `before` walks it a page at a time.
REPLAYABLE = text(f"""
    SELECT n.id, n.delivery_status AS status, LEFT(n.error_message, 2000) AS why, {YOUNG} AS young
    FROM chat_notifications n IGNORE INDEX (PRIMARY)
    WHERE n.delivery_status = :status AND n.id < :before AND COALESCE(n.error_message, '') LIKE :reason
      AND NOT EXISTS (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = n.id)
    ORDER BY n.id DESC LIMIT :rows
""")  # noqa: S608 - a constant of this project
REPLAY = text("""
    UPDATE chat_notifications SET delivery_status = 'PENDING', error_message = NULL
    WHERE id IN :ids AND delivery_status = :status
      AND NOT EXISTS (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = chat_notifications.id)
""").bindparams(bindparam("ids", expanding=True))
REPLAY_BATCH = 500


def replayable(engine: Engine, *, status: str, reason: str, limit: int) -> list[dict[str, Any]]:
    """Return up to `limit` rows of a status (FAILED or BOUNCED) whose error_message contains `reason`, newest first.

    Rows older than 24 h are left out: they would be given up again. Those of an unknown age would not.
    """
    found: list[dict[str, Any]] = []
    before = 2**62
    like = "%" + reason.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    with engine.connect() as connection:
        while len(found) < limit:
            page = dicts(connection, REPLAYABLE, status=status, reason=like, before=before, rows=REPLAY_BATCH)
            found += [row for row in page if row["young"]]
            if len(page) < REPLAY_BATCH or not page[-1]["young"]:
                break
            before = page[-1]["id"]
    return found[:limit]


def replay(engine: Engine, ids: list[int], status: str) -> int:
    """Make these rows PENDING again if they still have that status; return how many were."""
    changed = 0
    for start in range(0, len(ids), REPLAY_BATCH):
        batch = {"ids": ids[start : start + REPLAY_BATCH], "status": status}
        changed += transact(engine, lambda connection, batch=batch: connection.execute(REPLAY, batch).rowcount)  # type: ignore[misc]
    return changed
