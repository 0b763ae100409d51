"""Find attachments that need a scan though nobody enqueued them: missed uploads, and clean ones under new signatures.

The shared table has no index on its flags, so the sweep walks its primary key, in pages and without locks: the newest hour at
each sweep, all of it page by page behind that, and back from the newest once for each new signature database.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row, text

from db.identity import ABOVE_ALL, HIGHEST_ID, IS_ANOTHERS, LOWEST_ID, OF_ROW
from db.transactions import transact, write_rows
from tasks.attachments.clamd import Version
from tasks.attachments.queue import IS_ANOTHER_FILE, RESCANS, UPLOADS, WRITE_FLAGS, drop_others, lock_free, without_held
from tasks.attachments.verdicts import BLOCKED, SERVED_NAMES
from tasks.pause import RESTORE, paused

log = structlog.get_logger(__name__)

PAGE = 2000
MOST_PAGES = 50
RESCAN_PAGE = 500

# A row calls for a scan if nobody has an entry for it, or its flags were reset after a verdict. It is blocked, too, if it names
# another file than the one that was scanned, or is served without a verdict of ours: a client wrote its flags. What is older
# than the workers and served is dealt with as an operator has chosen; an id that no AUTO_INCREMENT gives was a client's choice,
# and so is one below the boundary that the walk has been past.
HISTORIC = """a.id BETWEEN 1 AND :boundary AND COALESCE(a.created_at <= :since, TRUE)
          AND (s.attachment_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM worker_scans r WHERE r.attachment_id = a.id))"""
COLUMNS = f"""
    SELECT a.id, COALESCE(a.created_at BETWEEN NOW() - INTERVAL 1 HOUR AND NOW() + INTERVAL 1 MINUTE, FALSE) AS young, CASE
      WHEN {IS_ANOTHER_FILE} THEN 'block'
      WHEN a.scanned_for_virus AND COALESCE(a.is_safe, 1) THEN CASE
        WHEN s.attachment_id IS NULL AND {HISTORIC} THEN ELT(:choice + 1, 'ask', 'scan', 'block', 'forged')
        WHEN s.verdict IN ('clean', 'released') OR (s.verdict = 'waiting' AND {HISTORIC}) THEN ''
        ELSE 'block' END
      WHEN a.scanned_for_virus THEN ''
      WHEN s.attachment_id IS NULL THEN 'scan'
      WHEN s.due_at IS NULL AND (COALESCE(a.is_safe, 1) OR s.verdict NOT IN ('unscannable', 'unverified')) THEN 'scan'
      ELSE '' END AS todo
    FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id AND NOT {IS_ANOTHERS}
"""  # noqa: S608 - constants of this module
NEWEST = text(f"{COLUMNS} WHERE a.id < :before ORDER BY a.id DESC LIMIT :rows")
ONWARD = text(f"{COLUMNS} WHERE a.id >= :first ORDER BY a.id LIMIT :rows")

# What is served though its verdict is bad, among the newest of each bad one, by their index: a client wrote its flags.
BAD_LOOKED_AT = 20_000
BAD = " UNION ALL ".join(
    f"(SELECT attachment_id FROM worker_scans WHERE verdict = '{verdict}' ORDER BY attachment_id DESC LIMIT {BAD_LOOKED_AT})"  # noqa: S608 - names of ours
    for verdict in ("infected", "unscannable", "unverified")
)
SERVED_THOUGH_BAD = text(f"""
    SELECT a.id, 'block' AS todo FROM ({BAD}) AS bad
    JOIN message_attachments a ON a.id = bad.attachment_id JOIN worker_scans s ON s.attachment_id = a.id AND NOT {IS_ANOTHERS}
    WHERE a.scanned_for_virus AND COALESCE(a.is_safe, 1) LIMIT {PAGE}
""")  # noqa: S608 - constants of this module

# What had a file that was tried or scanned is scanned for true.
ENTER = text(f"""
    INSERT INTO worker_scans (attachment_id, lane, due_at, of_row)
    SELECT a.id, :lane, NOW(3), {OF_ROW} FROM message_attachments a WHERE a.id IN :ids
    ON DUPLICATE KEY UPDATE
      of_row = VALUES(of_row),
      attempts = IF(lease IS NULL, 0, attempts), claims = IF(lease IS NULL, 0, claims),
      verdict = IF(lease IS NULL, 'waiting', verdict),
      forced = forced OR (lease IS NULL AND worker_scans.file_url <> ''),
      due_at = IF(lease IS NULL, NOW(3), worker_scans.due_at)
""")  # noqa: S608 - a constant of this project
# So that flags written once more, or not to be written now, are not taken for those of a row that waits and is from before the
# workers: `find_served` blocks it.
FORGED = text("UPDATE worker_scans SET verdict = 'unverified' WHERE attachment_id IN :ids AND verdict = 'waiting'")

# The walks by their names in `worker_scan_walks`.
OLDER, RESCAN = "patrol", "renewal"
START_WALK = text(f"""
    INSERT IGNORE INTO worker_scan_walks (walk, position, moved_at) VALUES (:walk, {LOWEST_ID}, NOW(3) - INTERVAL 1 MINUTE)
""")  # noqa: S608 - a number of ours
WALK = text("""
    SELECT position, database_version, LEAST(60, GREATEST(0, TIMESTAMPDIFF(MICROSECOND, moved_at, NOW(3)) / 1000000)) AS elapsed
    FROM worker_scan_walks WHERE walk = :walk FOR UPDATE
""")
MOVE = text("""
    UPDATE worker_scan_walks SET position = :position, database_version = :database, moved_at = NOW(3) WHERE walk = :walk
""")

# What was there before the workers, as far as no dump has brought its records along: its last id, and the time. The choice is 0
# until an operator has made one, for rows of then that are served: only the walks look for them, page by page. It is 3 once the
# walk has been through them all since: each has its record, and what has none was made by a client.
CHOICES = (None, "scan", "block", "scan")
ALL_SEEN = text("UPDATE worker_scan_walks SET database_version = 3 WHERE walk = 'history' AND database_version = 1")
BEGIN_HISTORY = text("""
    REPLACE INTO worker_scan_walks (walk, position, database_version, moved_at)
    SELECT 'history', COALESCE(MAX(id), 0), MAX(id) IS NULL, NOW(3) FROM message_attachments
""")
READ_HISTORY = text("""
    SELECT h.position AS boundary, h.moved_at AS since, h.database_version AS choice,
           EXISTS (SELECT 1 FROM worker_scan_walks WHERE walk = 'records') AS were_records,
           EXISTS (SELECT 1 FROM worker_scans) AS are_records
    FROM worker_scan_walks h WHERE h.walk = 'history'
""")
# There are records; where they are gone, all at once, they were lost: a new host, a restore without them.
RECORDED = text("INSERT IGNORE INTO worker_scan_walks (walk, position, moved_at) VALUES ('records', 0, NOW(3))")
LOST = text("DELETE FROM worker_scan_walks WHERE walk = 'records'")

# Entries by their primary key, newest first; what is too old ends the walk. A row that the API deleted says nothing of its age.
RECENT = text("""
    SELECT s.attachment_id AS id, s.verdict IN :served AND s.due_at IS NULL AND s.database_version < :database AS due,
           IF(a.id IS NULL, NULL, COALESCE(a.created_at > NOW() - INTERVAL :days DAY, TRUE)) AS recent
    FROM worker_scans s LEFT JOIN message_attachments a ON a.id = s.attachment_id
    WHERE s.attachment_id < :before ORDER BY s.attachment_id DESC LIMIT :rows
""")
MAKE_DUE = text("""
    UPDATE worker_scans SET lane = :lane, due_at = NOW(3) WHERE attachment_id IN :ids AND due_at IS NULL
""")


def find_recent(engine: Engine, *, page: int = PAGE) -> int:
    """Enqueue uploads of the last hour that nobody has enqueued; return how many. Newest first, page by page.

    Behind so many pages, as where a client writes times of this hour into old rows, they are the walk's over the table.
    """
    found, before, past = 0, ABOVE_ALL, history(engine)
    for _ in range(MOST_PAGES):
        with engine.connect() as connection:
            rows = connection.execute(NEWEST, {"before": before, "rows": page, **past._mapping}).all()
        # The newest ids are new, whatever time a client has written into them; were older ones young that have none, or one
        # to come, each look would go through the whole table.
        new = [row for row in rows if row.young or before == ABOVE_ALL]
        found += transact(engine, partial(_enqueue, new, UPLOADS))
        if len(rows) < page or not any(row.young for row in rows):
            break
        before = rows[-1].id
    return found


def find_served(engine: Engine) -> int:
    """Block and enqueue attachments that are served though their verdict is bad; return how many."""
    with engine.connect() as connection:
        rows = connection.execute(SERVED_THOUGH_BAD).all()

    def enqueue(connection: Connection) -> int:
        # One that cannot be written has a bad verdict already, and would be scanned anew at each sweep.
        blocked = _block(connection, [row.id for row in rows])
        return _enqueue([row for row in rows if row.id in blocked], UPLOADS, connection)

    return transact(engine, enqueue)


def find_older(engine: Engine, *, page: int = PAGE) -> int:
    """Enqueue older attachments without a verdict, one page of the table at each call, round and round; return how many."""
    past = history(engine)

    def walk(connection: Connection) -> int:
        first = _walk(connection, OLDER).position
        rows = connection.execute(ONWARD, {"first": first, "rows": page, **past._mapping}).all()
        _move(connection, OLDER, min(rows[-1].id + 1, HIGHEST_ID) if len(rows) == page else LOWEST_ID, 0)
        if len(rows) < page and past.choice == 1:
            connection.execute(ALL_SEEN)
        return _enqueue(rows, RESCANS, connection)

    return transact(engine, walk)


def schedule_rescans(engine: Engine, version: Version, *, days: int, per_minute: int) -> int:
    """Enqueue attachments that were found clean under older signatures than clamd has now, newest first; return how many.

    No more than `per_minute` over all workers, and only what was uploaded within `days`.
    """

    def walk(connection: Connection) -> int:
        at = _walk(connection, RESCAN)
        # Another clamd with older signatures changes nothing: two that differ would send the walk back for ever.
        position = ABOVE_ALL if version.database > at.database_version else at.position
        room = int(per_minute * float(at.elapsed) / 60)
        if position == LOWEST_ID or not room:
            return 0
        database = max(version.database, at.database_version)
        parameters = {"before": position, "days": days, "database": database, "served": sorted(SERVED_NAMES)}
        rows = connection.execute(RECENT, {"rows": RESCAN_PAGE, **parameters}).all()
        ids = [row.id for row in rows if row.recent and row.due][:room]
        ended = len(ids) < room and (len(rows) < RESCAN_PAGE or all(row.recent == 0 for row in rows))
        _move(connection, RESCAN, LOWEST_ID if ended else (ids[-1] if len(ids) == room else rows[-1].id), database)
        if ids:
            connection.execute(MAKE_DUE, {"ids": ids, "lane": RESCANS})
        return len(ids)

    return transact(engine, walk) if version.database and days else 0


def history(engine: Engine) -> "Row[Any]":
    """Return what was there before the workers, and what was chosen for it.

    Its boundary is drawn at the first call, and anew where all records were lost: an operator is asked again, of all rows.
    """

    def read(connection: Connection) -> "Row[Any]":
        found = connection.execute(READ_HISTORY).one_or_none()
        lost = found is not None and found.were_records and not found.are_records
        if found is None or (lost and RESTORE not in paused(engine)):
            connection.execute(LOST)
            connection.execute(BEGIN_HISTORY)
            return connection.execute(READ_HISTORY).one()
        if found.are_records and not found.were_records:
            connection.execute(RECORDED)
        return found

    return transact(engine, read)


def _enqueue(rows: "Sequence[Row[Any]]", lane: int, connection: Connection) -> int:
    ask, block, scan, forged = ([row.id for row in rows if row.todo == todo] for todo in ("ask", "block", "scan", "forged"))
    if ask:
        log.warning(f"{len(ask)} attachments or more are served unscanned: choose by chat-workers attachments history")
    blocked = _block(connection, block + forged)
    if due := without_held(connection, scan + block + forged):
        drop_others(connection, due)
        connection.execute(ENTER, {"ids": due, "lane": lane})
    if forged := forged + [each for each in block if each not in blocked]:
        connection.execute(FORGED, {"ids": forged})
    return len(due)


def _block(connection: Connection, ids: list[int]) -> set[int]:
    """Have these served no more; return those that no one else holds and the schema takes."""
    return {*write_rows(connection, WRITE_FLAGS, [*lock_free(connection, ids)], **BLOCKED._asdict())}


def _walk(connection: Connection, walk: str) -> "Row[Any]":
    connection.execute(START_WALK, {"walk": walk})
    return connection.execute(WALK, {"walk": walk}).one()


def _move(connection: Connection, walk: str, position: int, database: int) -> None:
    connection.execute(MOVE, {"walk": walk, "position": position, "database": database})
