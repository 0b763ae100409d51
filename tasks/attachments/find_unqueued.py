"""Find attachments that need a scan though nobody enqueued them: missed uploads, and clean ones under new signatures.

The shared table has no index on its flags, so the sweep walks its primary key, in pages and without locks: the newest hour at
each sweep, all of it page by page behind that, and back from the newest once for each new signature database.
"""

from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection, Engine, Row, bindparam, text

from db.transactions import transact
from tasks.attachments.attachment import IS_ANOTHERS, OF_ROW
from tasks.attachments.clamd import Version
from tasks.attachments.queue import RESCANS, UPLOADS
from tasks.attachments.verdicts import BLOCKED, SERVED_NAMES

log = structlog.get_logger(__name__)

CHOOSE = "say what is to become of them: chat-workers attachments history"
PAGE = 2000
RESCAN_PAGE = 500
BEFORE_ALL = 2**62

# A row calls for a scan if nobody has an entry for it; if its flags were reset after a verdict; if it names another file than
# the one that was scanned; or if it is served without a verdict of ours, and newer than the workers.
COLUMNS = f"""
    SELECT a.id, a.file_url, COALESCE(a.scanned_for_virus, 0) AS scanned, COALESCE(a.is_safe, 1) AS safe,
           COALESCE(a.created_at > NOW() - INTERVAL 1 HOUR, TRUE) AS young, s.attachment_id IS NULL AS unknown,
           s.due_at IS NULL AS settled, s.verdict, s.file_url AS scanned_url,
           a.id <= :boundary AND COALESCE(a.created_at <= :since, TRUE)
             AND (s.attachment_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM worker_scans r WHERE r.attachment_id = a.id))
             AS historic, a.created_at <= :trusted AS trusted
    FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id AND NOT {IS_ANOTHERS}
"""  # noqa: S608 - a constant of this project
NEWEST = text(f"{COLUMNS} WHERE a.id < :before ORDER BY a.id DESC LIMIT :rows")
ONWARD = text(f"{COLUMNS} WHERE a.id > :after ORDER BY a.id LIMIT :rows")

# What had a file that was tried or scanned is scanned for true.
ENTER = text(f"""
    INSERT INTO worker_scans (attachment_id, lane, due_at, of_row)
    SELECT a.id, :lane, NOW(3), {OF_ROW} FROM JSON_TABLE(:ids, '$[*]' COLUMNS (id BIGINT PATH '$')) AS missed
    STRAIGHT_JOIN message_attachments a ON a.id = missed.id
    ON DUPLICATE KEY UPDATE
      attempts = IF(lease IS NULL, 0, attempts), claims = IF(lease IS NULL, 0, claims),
      verdict = IF(lease IS NULL, 'waiting', verdict),
      forced = forced OR (lease IS NULL AND worker_scans.file_url <> ''),
      due_at = IF(lease IS NULL, NOW(3), worker_scans.due_at)
""")  # noqa: S608 - a constant of this project
TRUST = text(f"""
    INSERT IGNORE INTO worker_scans (attachment_id, of_row, verdict, reason, file_url, scanned_at)
    SELECT a.id, {OF_ROW}, 'released', 'from before the workers, trusted by an operator', a.file_url, NOW(3)
    FROM message_attachments a WHERE a.id IN :ids
""").bindparams(bindparam("ids", expanding=True))  # noqa: S608 - a constant of this project
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

# What was there before the workers, as far as no dump has brought its records along: its last id, and the time. The choice is 0
# until an operator has made one, for rows of then that are served: only the walks look for them, page by page.
ASKED, SCAN, BLOCK_FIRST = 0, 1, 2
BEGIN_HISTORY = text("""
    INSERT IGNORE INTO worker_scan_walks (walk, position, database_version, moved_at)
    SELECT 'history', COALESCE(MAX(id), 0), MAX(id) IS NULL, NOW(3) FROM message_attachments
""")
READ_HISTORY = text("""
    SELECT h.position AS boundary, h.moved_at AS since, h.database_version AS choice, t.moved_at AS trusted
    FROM worker_scan_walks h LEFT JOIN worker_scan_walks t ON t.walk = 'trusted' WHERE h.walk = 'history'
""")

# Entries by their primary key, newest first; what is too old ends the walk. A row that the API deleted says nothing of its age.
RECENT = text("""
    SELECT s.attachment_id AS id, s.verdict IN :served AND s.due_at IS NULL AND s.database_version < :database AS due,
           IF(a.id IS NULL, NULL, COALESCE(a.created_at > NOW() - INTERVAL :days DAY, TRUE)) AS recent
    FROM worker_scans s LEFT JOIN message_attachments a ON a.id = s.attachment_id
    WHERE s.attachment_id < :before ORDER BY s.attachment_id DESC LIMIT :rows
""").bindparams(bindparam("served", expanding=True))
MAKE_DUE = text("""
    UPDATE worker_scans SET lane = :lane, due_at = NOW(3) WHERE attachment_id IN :ids AND due_at IS NULL
""").bindparams(bindparam("ids", expanding=True))


def find_recent(engine: Engine, *, page: int = PAGE) -> int:
    """Enqueue uploads of the last hour that nobody has enqueued; return how many. Newest first, page by page."""
    found, before, past = 0, BEFORE_ALL, history(engine)
    while True:
        with engine.connect() as connection:
            rows = connection.execute(NEWEST, {"before": before, "rows": page, **past._mapping}).all()
        # The newest ids are new, whatever time a client has written into them.
        found += _enqueue(engine, [row for row in rows if row.young or before == BEFORE_ALL], UPLOADS, past)
        if len(rows) < page or not any(row.young for row in rows):
            return found
        before = rows[-1].id


def find_older(engine: Engine, *, page: int = PAGE) -> int:
    """Enqueue older attachments without a verdict, one page of the table at each call, round and round; return how many."""
    walk, past = _walk(engine, OLDER), history(engine)
    with engine.connect() as connection:
        rows = connection.execute(ONWARD, {"after": walk.position, "rows": page, **past._mapping}).all()
    found = _enqueue(engine, rows, RESCANS, past)
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
    ended = len(ids) < room and (len(rows) < RESCAN_PAGE or all(row.recent == 0 for row in rows))
    # The walk is moved first: if the next line never runs, these few stay under their old signatures until the next database.
    if not _move(engine, RESCAN, walk, 0 if ended else position, database):
        return 0
    if ids:
        transact(engine, lambda connection: connection.execute(MAKE_DUE, {"ids": ids, "lane": RESCANS}))
    return len(ids)


def history(engine: Engine) -> "Row[Any]":
    """Return what was there before the workers, and what was chosen for it. Its boundary is drawn at the first call."""
    with engine.connect() as connection:
        if found := connection.execute(READ_HISTORY).one_or_none():
            return found
    transact(engine, lambda connection: connection.execute(BEGIN_HISTORY))
    with engine.connect() as connection:
        return connection.execute(READ_HISTORY).one()


def _enqueue(engine: Engine, rows: "Sequence[Row[Any]]", lane: int, past: "Row[Any]") -> int:
    old = {row.id: row for row in rows if row.historic and row.unknown and row.scanned and row.safe}
    trusted = [row.id for row in old.values() if row.trusted and past.choice]
    if old and past.choice == ASKED:
        log.warning(f"{len(old)} attachments or more are served unscanned, from before the workers; {CHOOSE}")
    # Under no choice they are left alone; else they are trusted, scanned while they are served, or blocked like new ones.
    served = [key for key in old if key not in trusted] if past.choice == SCAN else []
    rows = [row for row in rows if row.id not in old or (past.choice == BLOCK_FIRST and row.id not in trusted)]
    false = [row.id for row in rows if _has_false_flags(row)]
    ids = [row.id for row in rows if _is_missed(row) and row.id not in false] + false + served

    def write(connection: Connection) -> None:
        if trusted:
            connection.execute(TRUST, {"ids": trusted})
        if false:
            connection.execute(BLOCK, {"ids": false, "scanned": BLOCKED.scanned_for_virus, "safe": BLOCKED.is_safe})
        if ids:
            connection.execute(ENTER, {"ids": orjson.dumps(ids).decode(), "lane": lane})

    if ids or trusted:
        transact(engine, write)
    return len(ids)


def _is_missed(row: "Row[Any]") -> bool:
    if row.scanned:
        return False
    # A settled row that is neither scanned nor blocked was reset by the API; so was one with a verdict that means scanned.
    return bool(row.unknown) or bool(row.settled and (row.safe or row.verdict not in {"unscannable", "unverified"}))


def _has_false_flags(row: "Row[Any]") -> bool:
    """Return True if a row names another file than the one tried or scanned, or is served without a verdict that says so.

    A client wrote its flags, or a restored dump put them back. What is older than the workers may be served while it waits.
    """
    served = row.scanned and row.safe and row.verdict not in SERVED_NAMES
    excused = row.historic and row.verdict == "waiting"
    return bool((served and not excused) or (row.scanned_url and row.scanned_url != row.file_url))


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
