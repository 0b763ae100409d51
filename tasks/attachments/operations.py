"""The operators' questions and orders: counts, the history of one attachment, another scan, a release."""

from typing import Any

from sqlalchemy import Connection, Engine, bindparam, text

from db.rows import dicts
from db.transactions import transact
from tasks.attachments.attachment import Attachment
from tasks.attachments.quarantine import Quarantine
from tasks.attachments.queue import RESCANS, UPLOADS
from tasks.attachments.storage.base import Storage

LIST = text("""
    SELECT s.attachment_id AS id, s.verdict, s.reason, s.signature, s.sha256, s.quarantine, s.scanned_at, a.uploaded_by_id,
           a.file_name
    FROM worker_scans s LEFT JOIN message_attachments a ON a.id = s.attachment_id
    WHERE s.verdict = :verdict ORDER BY s.attachment_id DESC LIMIT :rows
""")
RECORD = text("SELECT * FROM worker_scans WHERE attachment_id = :id")
ROW = text("""
    SELECT id, message_id, uploaded_by_id, file_name, file_url, file_size, file_type, file_extension, created_at,
           scanned_for_virus, is_safe
    FROM message_attachments WHERE id = :id
""")
HISTORY = text(
    "SELECT happened_at, event, reason, signature FROM worker_scan_events WHERE attachment_id = :id ORDER BY id LIMIT 1000"
)

FORCE = text("""
    INSERT INTO worker_scans (attachment_id, due_at, forced, lane)
    SELECT id, NOW(3), TRUE, :lane FROM message_attachments WHERE id IN :ids
    ON DUPLICATE KEY UPDATE forced = TRUE, lane = :lane, attempts = 0, due_at = IF(lease IS NULL, NOW(3), worker_scans.due_at)
""").bindparams(bindparam("ids", expanding=True))
EXISTING = text("SELECT COUNT(*) FROM message_attachments WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
OF_VERDICT = text("""
    SELECT attachment_id FROM worker_scans
    WHERE verdict = :verdict AND attachment_id > :after ORDER BY attachment_id LIMIT :rows
""")
PAGE = 1000

RELEASE = text("""
    INSERT INTO worker_scan_releases (sha256, released_by, reason) VALUES (:sha256, :who, :reason)
    ON DUPLICATE KEY UPDATE released_by = :who, reason = :reason, released_at = NOW(3)
""")
DUE_AGAIN = text("""
    UPDATE worker_scans SET quarantine = '', lane = :lane, attempts = 0, due_at = IF(lease IS NULL, NOW(3), due_at)
    WHERE attachment_id = :id
""")


class NotPossibleError(Exception):
    """An order cannot be carried out; the text says why."""


def of_verdict(engine: Engine, verdict: str, rows: int) -> list[dict[str, Any]]:
    """Return the newest attachments with this verdict."""
    with engine.connect() as connection:
        return dicts(connection, LIST, verdict=verdict, rows=rows)


def show(engine: Engine, attachment_id: int) -> dict[str, Any]:
    """Return an attachment's row, its record and its history. Raise NotPossibleError if there is neither row nor record."""
    with engine.connect() as connection:
        row, record, history = (dicts(connection, query, id=attachment_id) for query in (ROW, RECORD, HISTORY))
    if not row and not record:
        raise NotPossibleError(f"there is no attachment {attachment_id}")
    return {"attachment": row[0] if row else None, "scan": record[0] if record else None, "events": history}


def rescan(engine: Engine, ids: list[int]) -> int:
    """Have these attachments scanned now, known or not; return how many exist."""

    def write(connection: Connection) -> int:
        connection.execute(FORCE, {"ids": ids, "lane": UPLOADS if len(ids) == 1 else RESCANS})
        return int(connection.execute(EXISTING, {"ids": ids}).scalar_one())

    return transact(engine, write)


def rescan_verdict(engine: Engine, verdict: str) -> int:
    """Have all attachments with this verdict scanned again, behind the uploads; return how many. In pages."""
    forced, after = 0, 0
    while True:
        with engine.connect() as connection:
            ids = list(connection.execute(OF_VERDICT, {"verdict": verdict, "after": after, "rows": PAGE}).scalars())
        if not ids:
            return forced
        forced += rescan(engine, ids)
        after = ids[-1]


def release(
    engine: Engine, uploads: Storage, quarantine: Quarantine | None, attachment_id: int, *, who: str, why: str
) -> dict[str, Any]:
    """Release an attachment's bytes, wherever else they turn up; return their SHA-256, and whether the file was restored.

    Nothing is opened here: the next scan finds the release, and serves exactly these bytes. Raise NotPossibleError, and what
    the storages raise.
    """
    with engine.connect() as connection:
        record = connection.execute(RECORD, {"id": attachment_id}).mappings().one_or_none()
        row = connection.execute(ROW, {"id": attachment_id}).mappings().one_or_none()
    if record is None or row is None:
        raise NotPossibleError(f"there is no attachment {attachment_id} that was scanned")
    if record["verdict"] not in {"infected", "unscannable"} or record["sha256"] is None:
        raise NotPossibleError(
            f"attachment {attachment_id} is {record['verdict']}: {record['reason'] or 'nothing is held back'}"
        )
    restored = False
    if "://" in record["quarantine"]:
        if quarantine is None:
            raise NotPossibleError(f"it lies in {record['quarantine']}, and ATTACHMENTS_QUARANTINE_URL is not set")
        restored = quarantine.restore(Attachment(attachment_id, row["file_url"], sha256=record["sha256"]), uploads)

    def write(connection: Connection) -> None:
        connection.execute(RELEASE, {"sha256": record["sha256"], "who": who, "reason": why})
        connection.execute(DUE_AGAIN, {"id": attachment_id, "lane": UPLOADS})

    transact(engine, write)
    return {"attachment": attachment_id, "sha256": record["sha256"], "restored": restored}
