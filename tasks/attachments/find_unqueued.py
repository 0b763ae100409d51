"""Find attachments that need a scan though nobody enqueued them: missed uploads, and clean ones under new signatures.

The shared table has no index on its flags, so the sweep walks its primary key, in pages and without locks: the newest hour at
each sweep, all of it page by page behind that, and back from the newest once for each new signature database.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, bindparam, text

from db.transactions import transact
from tasks.attachments.clamd import Version
from tasks.attachments.queue import RESCANS, UPLOADS
from tasks.attachments.verdicts import BLOCKED, SERVED_NAMES

PAGE = 2000
RESCAN_PAGE = 500
BEFORE_ALL = 2**62

# A row calls for a scan if nobody has an entry for it; if its flags were reset after a verdict; or if it names another file
# than the one that was scanned.
COLUMNS = """
    SELECT a.id, a.file_url, COALESCE(a.scanned_for_virus, 0) AS scanned, COALESCE(a.is_safe, 1) AS safe,
           a.created_at > NOW() - INTERVAL 1 HOUR AS young, s.attachment_id IS NULL AS unknown, s.due_at IS NULL AS settled,
           s.verdict, s.file_url AS scanned_url
    FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id
"""
NEWEST = text(f"{COLUMNS} WHERE a.id < :before ORDER BY a.id DESC LIMIT :rows")
ONWARD = text(f"{COLUMNS} WHERE a.id > :after ORDER BY a.id LIMIT :rows")

ENTER = text("""
    INSERT INTO worker_scans (attachment_id, lane, due_at)
    SELECT id, :lane, NOW(3) FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id BIGINT PATH '$')) AS missed
    ON DUPLICATE KEY UPDATE
      attempts = IF(worker_scans.due_at IS NULL, 0, attempts),
      verdict = IF(worker_scans.due_at IS NULL, 'waiting', verdict), due_at = COALESCE(worker_scans.due_at, VALUES(due_at))
""")
BLOCK = text("""
    UPDATE message_attachments SET scanned_for_virus = :scanned, is_safe = :safe WHERE id IN :ids
""").bindparams(bindparam("ids", expanding=True))

# The walks by their names in `worker_scan_walks`.
OLDER, RESCAN = "patrol", "renewal"
START_WALK = text("""
    INSERT IGNORE INTO worker_scan_walks (walk, position, moved_at) VALUES (:walk, 0, NOW(3) - INTERVAL 1 MINUTE)
""")
WALK = text("""
    SELECT position, database_version, LEAST(60, GREATEST(0, TIMESTAMPDIFF(MICROSECOND, moved_at, NOW(3)) / 1000000)) AS elapsed
    FROM worker_scan_walks WHERE walk = :walk
""")
MOVE = text("""
    UPDATE worker_scan_walks SET position = :position, database_version = :database, moved_at = NOW(3)
    WHERE walk = :walk AND position = :was AND database_version = :was_database
""")

# Entries by their primary key, newest first; what is too old ends the walk.
RECENT = text("""
    SELECT s.attachment_id AS id, s.verdict IN :served AND s.due_at IS NULL AND s.database_version < :database AS due,
           a.created_at > NOW() - INTERVAL :days DAY AS recent
    FROM worker_scans s LEFT JOIN message_attachments a ON a.id = s.attachment_id
    WHERE s.attachment_id < :before ORDER BY s.attachment_id DESC LIMIT :rows
""").bindparams(bindparam("served", expanding=True))
MAKE_DUE = text("""
    UPDATE worker_scans SET lane = :lane, due_at = NOW(3) WHERE attachment_id IN :ids AND due_at IS NULL
""").bindparams(bindparam("ids", expanding=True))


def find_recent(engine: Engine, *, page: int = PAGE) -> int:
    """Enqueue uploads of the last hour that nobody has enqueued; return how many. Newest first, page by page."""
    found, before = 0, BEFORE_ALL
    while True:
        with engine.connect() as connection:
            rows = connection.execute(NEWEST, {"before": before, "rows": page}).all()
        found += _enqueue(engine, [row for row in rows if row.young], UPLOADS)
        if len(rows) < page or not any(row.young for row in rows):
            return found
        before = rows[-1].id


def find_older(engine: Engine, *, page: int = PAGE) -> int:
    """Enqueue older attachments without a verdict, one page of the table at each call, round and round; return how many."""
    walk = _walk(engine, OLDER)
    with engine.connect() as connection:
        rows = connection.execute(ONWARD, {"after": walk.position, "rows": page}).all()
    found = _enqueue(engine, rows, RESCANS)
    _move(engine, OLDER, walk, rows[-1].id if len(rows) == page else 0, 0)
    return found


def schedule_rescans(engine: Engine, version: Version, *, days: int, per_minute: int) -> int:
    """Enqueue attachments that were found clean under older signatures than clamd has now, newest first; return how many.

    No more than `per_minute` over all workers, and only what was uploaded within `days`.
    """
    if not version.database or not days:
        return 0
    walk = _walk(engine, RESCAN)
    # Another clamd with older signatures changes nothing: two that differ would send the walk back for ever.
    position = BEFORE_ALL if version.database > walk.database_version else walk.position
    room = int(per_minute * float(walk.elapsed) / 60)
    if not position or not room:
        return 0
    database = max(version.database, walk.database_version)
    parameters = {"before": position, "rows": RESCAN_PAGE, "days": days, "database": database, "served": sorted(SERVED_NAMES)}
    with engine.connect() as connection:
        rows = connection.execute(RECENT, parameters).all()
    ids: list[int] = []
    for row in rows:
        if len(ids) == room:
            break
        position = row.id
        if row.recent and row.due:
            ids.append(row.id)
    ended = len(ids) < room and (len(rows) < RESCAN_PAGE or not any(row.recent for row in rows))
    # The walk is moved first: if the next line never runs, these few stay under their old signatures until the next database.
    if not _move(engine, RESCAN, walk, 0 if ended else position, database):
        return 0
    if ids:
        transact(engine, lambda connection: connection.execute(MAKE_DUE, {"ids": ids, "lane": RESCANS}))
    return len(ids)


def _enqueue(engine: Engine, rows: "Sequence[Row[Any]]", lane: int) -> int:
    false = [row.id for row in rows if _has_false_flags(row)]
    ids = [row.id for row in rows if _is_missed(row) and row.id not in false] + false

    def write(connection: Connection) -> None:
        if false:
            connection.execute(BLOCK, {"ids": false, "scanned": BLOCKED.scanned_for_virus, "safe": BLOCKED.is_safe})
        connection.execute(ENTER, {"ids": orjson.dumps(ids).decode(), "lane": lane})

    if ids:
        transact(engine, write)
    return len(ids)


def _is_missed(row: "Row[Any]") -> bool:
    if row.scanned:
        return False
    # A settled row that is neither scanned nor blocked was reset by the API; so was one with a verdict that means scanned.
    return bool(row.unknown) or bool(row.settled and (row.safe or row.verdict not in {"unscannable", "unverified"}))


def _has_false_flags(row: "Row[Any]") -> bool:
    """Return True if a verdict's row names another file by now, or is served: a restored dump or a hand put the flags back."""
    if row.unknown or not row.settled:
        return False
    served = row.scanned and row.safe and row.verdict not in SERVED_NAMES
    return bool(served or (row.scanned_url and row.scanned_url != row.file_url))


def _walk(engine: Engine, walk: str) -> "Row[Any]":
    def read(connection: Connection) -> "Row[Any]":
        connection.execute(START_WALK, {"walk": walk})
        return connection.execute(WALK, {"walk": walk}).one()

    return transact(engine, read)


def _move(engine: Engine, walk: str, was: "Row[Any]", position: int, database: int) -> bool:
    """Move the walk on, unless another sweep has; return whether this one has."""
    parameters = {
        "walk": walk, "position": position, "database": database, "was": was.position, "was_database": was.database_version
    }  # fmt: skip
    return transact(engine, lambda connection: connection.execute(MOVE, parameters).rowcount) == 1
