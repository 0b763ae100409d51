"""The operators' questions and orders: counts, the history of one attachment, another scan, a release."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, text

from db.identity import BELOW_ALL, IS_ANOTHERS, LOWEST_ID, OF_ROW
from db.rows import dicts
from db.transactions import transact
from tasks.attachments import find_unqueued
from tasks.attachments.quarantine import Quarantine
from tasks.attachments.queue import IS_ANOTHER_FILE, RESCANS, UPLOADS, drop_others
from tasks.attachments.storage.base import Storage

LIST = text("""
    SELECT s.attachment_id AS id, s.verdict, s.reason, s.signature, s.sha256, s.quarantine, s.scanned_at, a.uploaded_by_id,
           a.file_name
    FROM worker_scans s LEFT JOIN message_attachments a ON a.id = s.attachment_id
    WHERE s.verdict = :verdict ORDER BY s.attachment_id DESC LIMIT :rows
""")
RECORD = text(f"""
    SELECT s.* FROM worker_scans s LEFT JOIN message_attachments a ON a.id = s.attachment_id
    WHERE s.attachment_id = :id AND (a.id IS NULL OR NOT {IS_ANOTHERS})
""")  # noqa: S608 - a constant of this project
SHARED = text("""
    SELECT id, message_id, uploaded_by_id, file_name, file_url, file_size, file_type, file_extension, created_at,
           scanned_for_virus, is_safe
    FROM message_attachments WHERE id = :id
""")
HISTORY = text(f"""
    SELECT s.happened_at, s.event, s.reason, s.signature
    FROM worker_scan_events s LEFT JOIN message_attachments a ON a.id = s.attachment_id
    WHERE s.attachment_id = :id AND NOT (a.id IS NOT NULL AND {IS_ANOTHERS}) ORDER BY s.id LIMIT 1000
""")  # noqa: S608 - a constant of this project

FORCE = text(f"""
    INSERT INTO worker_scans (attachment_id, due_at, forced, lane, of_row)
    SELECT a.id, NOW(3), TRUE, :lane, {OF_ROW} FROM message_attachments a WHERE a.id IN :ids
    ON DUPLICATE KEY UPDATE of_row = VALUES(of_row), forced = TRUE, lane = :lane, attempts = 0,
      claims = IF(lease IS NULL, 0, claims), due_at = IF(lease IS NULL, NOW(3), worker_scans.due_at)
""")  # noqa: S608 - a constant of this project
EXISTING = text("SELECT COUNT(*) FROM message_attachments WHERE id IN :ids")
OF_VERDICT = text("""
    SELECT attachment_id AS id FROM worker_scans
    WHERE verdict = :verdict AND attachment_id > :after ORDER BY attachment_id LIMIT :rows
""")
PAGE, HISTORY_PAGE = 1000, 10_000

RELEASE = text("""
    INSERT INTO worker_scan_releases (sha256, released_by, reason) VALUES (:sha256, :who, :reason)
    ON DUPLICATE KEY UPDATE released_by = :who, reason = :reason, released_at = NOW(3)
""")
# All rows of these bytes that name the same files still, by idx_sha256.
HELD_BACK = text(f"""
    SELECT a.id, a.file_url, s.quarantine FROM worker_scans s JOIN message_attachments a ON a.id = s.attachment_id
    WHERE NOT {IS_ANOTHERS} AND NOT {IS_ANOTHER_FILE} AND s.sha256 = :sha256 AND s.verdict IN ('infected', 'unscannable')
      AND s.attachment_id > :after ORDER BY s.attachment_id LIMIT :rows
""")  # noqa: S608 - constants of this project
DUE_AGAIN = text("""
    UPDATE worker_scans SET quarantine = '', lane = :lane, attempts = 0, due_at = IF(lease IS NULL, NOW(3), due_at)
    WHERE attachment_id IN :ids
""")

# Page by page of the primary key.
OLD = text(f"""
    SELECT MAX(id) AS last, COALESCE(SUM(old), 0) AS attachments, COALESCE(SUM(IF(old, file_size, 0)), 0) AS bytes
    FROM (SELECT a.id, a.file_size, s.attachment_id IS NULL AND COALESCE(a.created_at <= :since, TRUE)
                 AND COALESCE(a.scanned_for_virus AND a.is_safe, FALSE) AS old
          FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id AND NOT {IS_ANOTHERS}
          WHERE a.id > :after AND a.id <= :boundary ORDER BY a.id LIMIT :rows) AS page
""")  # noqa: S608 - a constant of this project
CHOOSE = text("UPDATE worker_scan_walks SET database_version = :choice WHERE walk = 'history'")


class NotPossibleError(Exception):
    """An order cannot be carried out; the text says why."""


def of_verdict(engine: Engine, verdict: str, rows: int) -> list[dict[str, Any]]:
    """Return the newest attachments with this verdict."""
    with engine.connect() as connection:
        return dicts(connection, LIST, verdict=verdict, rows=rows)


def show(engine: Engine, attachment_id: int) -> dict[str, Any]:
    """Return an attachment's row, its record and its history. Raise NotPossibleError if there is neither row nor record."""
    with engine.connect() as connection:
        row, record, history = (dicts(connection, query, id=attachment_id) for query in (SHARED, RECORD, HISTORY))
    if not row and not record:
        raise NotPossibleError(f"there is no attachment {attachment_id}")
    return {"attachment": row[0] if row else None, "scan": record[0] if record else None, "events": history}


def rescan(engine: Engine, ids: list[int]) -> int:
    """Have these attachments scanned now, known or not; return how many exist."""

    def write(connection: Connection) -> int:
        drop_others(connection, ids)
        connection.execute(FORCE, {"ids": ids, "lane": UPLOADS if len(ids) == 1 else RESCANS})
        return int(connection.execute(EXISTING, {"ids": ids}).scalar_one())

    return transact(engine, write)


def rescan_verdict(engine: Engine, verdict: str) -> int:
    """Have all attachments with this verdict scanned again, behind the uploads; return how many. In pages."""
    pages = _pages(engine, OF_VERDICT, verdict=verdict)
    return sum(rescan(engine, [row["id"] for row in rows]) for rows in pages)


def _pages(engine: Engine, query: TextClause, **values: object) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = [{"id": BELOW_ALL}]
    while True:
        with engine.connect() as connection:
            rows = dicts(connection, query, after=rows[-1]["id"], rows=PAGE, **values)
        if not rows:
            return
        yield rows


def release(
    engine: Engine, uploads: Storage, quarantine: Quarantine | None, attachment_id: int, *, who: str, why: str
) -> dict[str, Any]:
    """Release an attachment's bytes, in whichever rows; return their SHA-256, and how many rows and restored files there are.

    Nothing is opened here: the next scan finds the release, and serves exactly these bytes. Raise NotPossibleError, and what
    the storages raise.
    """
    found = show(engine, attachment_id)
    record, sha256 = found["scan"], (found["scan"] or {}).get("sha256")
    if not record or not found["attachment"]:
        raise NotPossibleError(f"there is no attachment {attachment_id} that was scanned")
    if record["verdict"] not in {"infected", "unscannable"} or sha256 is None:
        raise NotPossibleError(
            f"attachment {attachment_id} is {record['verdict']}: {record['reason'] or 'nothing is held back'}"
        )
    if "://" in record["quarantine"] and quarantine is None:
        raise NotPossibleError(f"it lies in {record['quarantine']}, and ATTACHMENTS_QUARANTINE_URL is not set")
    released, restored = 0, 0
    for rows in _pages(engine, HELD_BACK, sha256=sha256):
        # Restored first: a copy in quarantine that has changed raises here, and nothing is vouched for.
        if quarantine:
            kept = [row for row in rows if "://" in row["quarantine"]]
            restored += sum(quarantine.restore(row["file_url"], row["quarantine"], sha256, uploads) for row in kept)
        ids = [row["id"] for row in rows]
        transact(engine, partial(_release, {"sha256": sha256, "who": who, "reason": why}, ids))
        released += len(ids)
    return {"attachment": attachment_id, "sha256": sha256, "released": released, "restored": restored}


def _release(parameters: dict[str, str], ids: list[int], connection: Connection) -> None:
    connection.execute(RELEASE, parameters)
    connection.execute(DUE_AGAIN, {"ids": ids, "lane": UPLOADS})


def history(engine: Engine) -> dict[str, Any]:
    """Return how much is served from before the workers without a scan, and what was chosen for it."""
    past, after, attachments, size = find_unqueued.history(engine), 0, 0, 0
    while after is not None:
        with engine.connect() as connection:
            parameters = {"boundary": past.boundary, "since": past.since, "after": after, "rows": HISTORY_PAGE}
            page = connection.execute(OLD, parameters).one()
        after, attachments, size = page.last, attachments + int(page.attachments), size + int(page.bytes)
    return {"attachments": attachments, "bytes": size, "choice": find_unqueued.CHOICES[past.choice]}


def choose(engine: Engine, choice: str) -> None:
    """Say what becomes of attachments from before the workers: `scan` while they are served, or `block` until then. The sweep
    carries it out, page by page.
    """
    find_unqueued.history(engine)
    number = find_unqueued.CHOICES.index(choice)

    def write(connection: Connection) -> None:
        connection.execute(find_unqueued.MOVE, {"walk": find_unqueued.OLDER, "position": LOWEST_ID, "database": 0})
        connection.execute(CHOOSE, {"choice": number})

    transact(engine, write)
