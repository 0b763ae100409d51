"""The operators' questions and orders: counts, the history of one attachment, another scan, a release."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, text

from db.identity import IS_ANOTHERS, OF_ROW
from db.rows import dicts
from db.transactions import transact
from tasks.attachments import find_unqueued
from tasks.attachments.attachment import Attachment
from tasks.attachments.quarantine import Quarantine
from tasks.attachments.queue import DROP_OTHERS, RESCANS, UPLOADS
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
""").bindparams(bindparam("ids", expanding=True))  # noqa: S608 - a constant of this project
EXISTING = text("SELECT COUNT(*) FROM message_attachments WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
OF_VERDICT = text("""
    SELECT attachment_id FROM worker_scans
    WHERE verdict = :verdict AND attachment_id > :after ORDER BY attachment_id LIMIT :rows
""")
PAGE, HISTORY_PAGE = 1000, 10_000
ENDS = ((min, "oldest"), (max, "newest"))

RELEASE = text("""
    INSERT INTO worker_scan_releases (sha256, released_by, reason) VALUES (:sha256, :who, :reason)
    ON DUPLICATE KEY UPDATE released_by = :who, reason = :reason, released_at = NOW(3)
""")
# All rows of these bytes, by idx_sha256.
HELD_BACK = text(f"""
    SELECT a.id, a.file_url, s.quarantine FROM worker_scans s JOIN message_attachments a ON a.id = s.attachment_id
    WHERE NOT {IS_ANOTHERS} AND s.sha256 = :sha256 AND s.verdict IN ('infected', 'unscannable') AND s.attachment_id > :after
    ORDER BY s.attachment_id LIMIT :rows
""")  # noqa: S608 - a constant of this project
DUE_AGAIN = text("""
    UPDATE worker_scans SET quarantine = '', lane = :lane, attempts = 0, due_at = IF(lease IS NULL, NOW(3), due_at)
    WHERE attachment_id IN :ids
""").bindparams(bindparam("ids", expanding=True))

# Page by page of the primary key.
OLD = text(f"""
    SELECT MAX(id) AS last, SUM(old) AS attachments, SUM(IF(old, COALESCE(file_size, 0), 0)) AS bytes,
           MIN(IF(old, created_at, NULL)) AS oldest, MAX(IF(old, created_at, NULL)) AS newest
    FROM (SELECT a.id, a.file_size, a.created_at, s.attachment_id IS NULL AND COALESCE(a.created_at <= :since, TRUE)
                 AND COALESCE(a.scanned_for_virus AND a.is_safe, FALSE) AS old
          FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id AND NOT {IS_ANOTHERS}
          WHERE a.id > :after AND a.id <= :boundary ORDER BY a.id LIMIT :rows) AS page
""")  # noqa: S608 - a constant of this project
CHOOSE = text("UPDATE worker_scan_walks SET database_version = :choice WHERE walk = 'history'")
TRUST_UNTIL = text("""
    INSERT INTO worker_scan_walks (walk, position, moved_at) VALUES ('trusted', 0, :until)
    ON DUPLICATE KEY UPDATE moved_at = :until
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
        row, record, history = (dicts(connection, query, id=attachment_id) for query in (SHARED, RECORD, HISTORY))
    if not row and not record:
        raise NotPossibleError(f"there is no attachment {attachment_id}")
    return {"attachment": row[0] if row else None, "scan": record[0] if record else None, "events": history}


def rescan(engine: Engine, ids: list[int]) -> int:
    """Have these attachments scanned now, known or not; return how many exist."""

    def write(connection: Connection) -> int:
        connection.execute(DROP_OTHERS, {"ids": ids})
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
    """Release an attachment's bytes, in whichever rows; return their SHA-256, and how many rows and restored files there are.

    Nothing is opened here: the next scan finds the release, and serves exactly these bytes. Raise NotPossibleError, and what
    the storages raise.
    """
    with engine.connect() as connection:
        record = connection.execute(RECORD, {"id": attachment_id}).mappings().one_or_none()
        row = connection.execute(SHARED, {"id": attachment_id}).mappings().one_or_none()
    if record is None or row is None:
        raise NotPossibleError(f"there is no attachment {attachment_id} that was scanned")
    if record["verdict"] not in {"infected", "unscannable"} or record["sha256"] is None:
        raise NotPossibleError(
            f"attachment {attachment_id} is {record['verdict']}: {record['reason'] or 'nothing is held back'}"
        )
    if "://" in record["quarantine"] and quarantine is None:
        raise NotPossibleError(f"it lies in {record['quarantine']}, and ATTACHMENTS_QUARANTINE_URL is not set")
    # Restored first: a copy in quarantine that has changed raises here, and nothing is vouched for.
    restored = _restore({**record, **row}, record["sha256"], uploads, quarantine)
    parameters = {"sha256": record["sha256"], "who": who, "reason": why}
    transact(engine, lambda connection: connection.execute(RELEASE, parameters))
    after, released = 0, 0
    while True:
        with engine.connect() as connection:
            rows = dicts(connection, HELD_BACK, sha256=record["sha256"], after=after, rows=PAGE)
        if not rows:
            return {"attachment": attachment_id, "sha256": record["sha256"], "released": released, "restored": restored}
        for each in rows:
            restored += _restore(each, record["sha256"], uploads, quarantine)
        ids, after = [each["id"] for each in rows], rows[-1]["id"]
        transact(engine, lambda connection: connection.execute(DUE_AGAIN, {"ids": ids, "lane": UPLOADS}))  # noqa: B023 - run here
        released += len(ids)


def _restore(row: dict[str, Any], sha256: str, uploads: Storage, quarantine: Quarantine | None) -> int:
    if quarantine is None or "://" not in row["quarantine"]:
        return 0
    return int(quarantine.restore(Attachment(row["id"], row["file_url"], sha256=sha256, quarantine=row["quarantine"]), uploads))


def history(engine: Engine) -> dict[str, Any]:
    """Return what is served from before the workers without a scan, and what was chosen for it."""
    past, pages, after = find_unqueued.history(engine), list[dict[str, Any]](), -1
    while after is not None:
        with engine.connect() as connection:
            pages += dicts(connection, OLD, boundary=past.boundary, since=past.since, after=after, rows=HISTORY_PAGE)
        after = pages[-1]["last"]
    attachments, size = (sum(int(page[key] or 0) for page in pages) for key in ("attachments", "bytes"))
    oldest, newest = (pick((page[key] for page in pages if page[key]), default=None) for pick, key in ENDS)
    choice = (None, "scan", "block")[past.choice]
    left = {"attachments": attachments, "bytes": size, "oldest": oldest, "newest": newest}
    return {**left, "choice": choice, "trusted_until": past.trusted}


def choose(engine: Engine, choice: str, trusted_until: datetime | None) -> None:
    """Say what becomes of attachments from before the workers: `scan` while they are served, or `block` until then; those until
    a time are trusted. The sweep carries it out, page by page.
    """

    def write(connection: Connection) -> None:
        connection.execute(CHOOSE, {"choice": {"scan": find_unqueued.SCAN, "block": find_unqueued.BLOCK_FIRST}[choice]})
        if trusted_until:
            connection.execute(TRUST_UNTIL, {"until": trusted_until})

    find_unqueued.history(engine)
    transact(engine, write)
