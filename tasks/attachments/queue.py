"""Claim, load and settle attachments: every statement that scanning writes, once, with its index.

A claim is a lease in `worker_scans`. `due_at` is when a worker may claim: the end of a lease, or the next try; NULL when there
is nothing to do. Times are the database's. The shared row is written only when a result is settled.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, TextClause, text

from db.identity import IS_ANOTHERS, OF_ROW
from db.rows import dicts
from db.transactions import transact, write_rows
from tasks import outbox
from tasks.attachments.clamd import Version
from tasks.attachments.settlement import Attachment, Settlement
from tasks.attachments.verdicts import Finding, Kind

# A run renews its leases each HEARTBEAT_SECONDS; a worker that died gives its rows back within LEASE_SECONDS, four times as
# many with each worker that died of one: five in a row block a file for good, and workers may die for another reason.
LEASE_SECONDS = 60
HEARTBEAT_SECONDS = 10
SETTLE_PATIENCE_SECONDS = 25

# Uploads and retries; old rows and re-scans, which are claimed when the first lane is empty.
UPLOADS, RESCANS = 0, 1

# The file that a row `a` names: of an address that a record has no room for no file, for its beginning may name another; nor of
# none.
FILE_URL = "IF(CHAR_LENGTH(a.file_url) <= 500, a.file_url, '//')"
# Whether it is another than the record `s` is about; names may differ by a letter's case alone.
IS_ANOTHER_FILE = f"CAST(s.file_url AS BINARY) NOT IN ('', CAST(CONVERT({FILE_URL} USING utf8mb4) AS BINARY))"

# A shared row that the API holds must not hold the others up: only those that are free are locked, to be written. What is read
# of them to write elsewhere is read in a subquery, for an UPDATE or DELETE would wait for the locks of what it joins.
FREE = text("SELECT id FROM message_attachments FORCE INDEX (PRIMARY) WHERE id IN :ids FOR UPDATE SKIP LOCKED")
# Of records, too: who holds one, as a worker whose host has vanished does for two minutes, keeps no look from the others.
RECORDS = text("SELECT attachment_id FROM worker_scans WHERE attachment_id IN :ids")
FREE_RECORDS = text(f"{RECORDS.text} FOR UPDATE SKIP LOCKED")
# By primary keys: records of rows that are gone, whose ids have come back, and what an earlier version wrote.
OTHERS = text(f"""
    SELECT s.attachment_id FROM worker_scans s FORCE INDEX (PRIMARY) WHERE s.attachment_id IN :ids
      AND (SELECT {IS_ANOTHERS} FROM message_attachments a WHERE a.id = s.attachment_id) FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a constant of this project
DROP = text("DELETE FROM worker_scans WHERE attachment_id IN :ids")
# One attachment, by its primary keys. The entry is made if it is not there; the shared row is read without a lock. Who asks
# again for bytes that have had a verdict for a minute, so not by a doubled call, has them scanned, even if they are known.
ENTER = text(f"""
    INSERT INTO worker_scans (attachment_id, due_at, of_row)
    SELECT a.id, NOW(3), {OF_ROW} FROM message_attachments a WHERE a.id = :id
    ON DUPLICATE KEY UPDATE of_row = VALUES(of_row),
      forced = forced OR (worker_scans.file_url <> '' AND COALESCE(scanned_at <= NOW(3) - INTERVAL 1 MINUTE, TRUE))
""")  # noqa: S608 - a constant of this project
# What has a verdict, and is not reset by the API, is scanned by the sweep, behind the uploads: however often it is asked for,
# and with no longer waits for that.
LEAVE = text(f"""
    UPDATE worker_scans s
    SET s.forced = s.forced OR COALESCE(s.scanned_at <= NOW(3) - INTERVAL 1 MINUTE, TRUE),
        s.attempts = LEAST(s.attempts, 2), s.lane = IF(s.due_at IS NULL, {RESCANS}, s.lane),
        s.due_at = IF(s.lease IS NULL, NOW(3), s.due_at)
    WHERE s.attachment_id = :id AND s.verdict <> 'waiting'
      AND (SELECT NOT {IS_ANOTHERS} AND (a.scanned_for_virus OR NOT COALESCE(a.is_safe, 1)) AND NOT {IS_ANOTHER_FILE}
           FROM message_attachments a WHERE a.id = s.attachment_id)
""")  # noqa: S608 - constants of this project
# A call may come before the next try is due, but not where a scan broke off: such a one waits, to be scanned alone.
CLAIM_ONE = text("""
    SELECT attachment_id AS id, IF(due_at > NOW(3), CAST(due_at AS CHAR), NULL) AS due_at FROM worker_scans
    WHERE attachment_id = :id AND ((lease IS NULL AND claims = 0) OR due_at <= NOW(3)) FOR UPDATE SKIP LOCKED
""")
# Due rows, by idx_due (lane, due_at), locked for as long as it takes to write their leases; those over which scans broke off,
# few, by themselves.
CLAIM_DUE = text("""
    SELECT attachment_id AS id, NULL AS due_at FROM worker_scans
    WHERE lane = :lane AND due_at <= NOW(3) AND (claims > 0) = :broke_off ORDER BY due_at LIMIT :rows FOR UPDATE SKIP LOCKED
""")
LEASE = text("""
    UPDATE worker_scans
    SET lease = :lease, due_at = NOW(3) + INTERVAL (:seconds * LEAST(64, POW(4, claims))) SECOND, claims = claims + 1
    WHERE attachment_id IN :ids
""")
RENEW = text("""
    UPDATE worker_scans SET due_at = NOW(3) + INTERVAL (:seconds * LEAST(64, POW(4, claims - 1))) SECOND
    WHERE attachment_id IN :ids AND lease = :lease
""")

# The fields of an Attachment, by primary keys, without locks. What lies in quarantine is of the file that was named then.
LOAD = text(f"""
    SELECT s.attachment_id AS id, s.claims, s.attempts, s.forced, s.verdict, s.reason, s.signature, s.sha256,
           IF({IS_ANOTHER_FILE}, '', s.quarantine) AS quarantine,
           {FILE_URL} AS file_url, a.file_size, COALESCE({OF_ROW}, '') AS of_row,
           COALESCE(s.verdict = 'waiting' AND a.scanned_for_virus AND a.is_safe AND a.id BETWEEN 1 AND h.position
                    AND COALESCE(a.created_at <= h.moved_at, TRUE), FALSE) AS historic
    FROM worker_scans s JOIN message_attachments a ON a.id = s.attachment_id AND NOT {IS_ANOTHERS}
    LEFT JOIN worker_scan_walks h ON h.walk = 'history'
    WHERE s.attachment_id IN :ids AND s.lease = :lease ORDER BY s.attachment_id
""")  # noqa: S608 - a constant of this project

# Settling, by primary keys: which rows this run still holds, and whether each still names the file that was scanned.
HELD = text(f"""
    SELECT s.attachment_id, (SELECT {FILE_URL} FROM message_attachments a WHERE a.id = s.attachment_id),
           (SELECT {OF_ROW} FROM message_attachments a WHERE a.id = s.attachment_id)
    FROM worker_scans s FORCE INDEX (PRIMARY) WHERE s.attachment_id IN :ids AND s.lease = :lease FOR UPDATE
""")  # noqa: S608 - a constant of this project
# Settlements as JSON: `engine` and what follows are of a finding, the others' NULL; `was_…` are what was known before.
RESULTS = """JSON_TABLE(:results, '$[*]' COLUMNS (
      id BIGINT PATH '$.attachment.id', file_url VARCHAR(500) PATH '$.attachment.file_url',
      of_row VARCHAR(64) PATH '$.attachment.of_row', due_at DATETIME(3) PATH '$.attachment.due_at',
      was_signature VARCHAR(255) PATH '$.attachment.signature', was_sha256 CHAR(64) PATH '$.attachment.sha256',
      verdict VARCHAR(16) PATH '$.verdict', reason VARCHAR(255) PATH '$.reason', event VARCHAR(16) PATH '$.event',
      attempts SMALLINT PATH '$.attempts', claims SMALLINT PATH '$.claims', wait DECIMAL(12, 3) PATH '$.wait',
      quarantine VARCHAR(500) PATH '$.quarantine',
      engine VARCHAR(32) PATH '$.finding.engine', database_version BIGINT PATH '$.finding.database_version',
      signature VARCHAR(255) PATH '$.finding.signature', sha256 CHAR(64) PATH '$.finding.sha256',
      size BIGINT PATH '$.finding.size', identity VARCHAR(255) PATH '$.finding.identity',
      scanned_at DATETIME(3) PATH '$.finding.scanned_at')) AS r"""
WRITE_FLAGS = text("""
    UPDATE message_attachments FORCE INDEX (PRIMARY)
    SET scanned_for_virus = :scanned_for_virus, is_safe = :is_safe WHERE id IN :ids
""")
SETTLED = f"""
    UPDATE {RESULTS} STRAIGHT_JOIN worker_scans s ON s.attachment_id = r.id
    SET s.lease = NULL, s.claims = r.claims, s.attempts = r.attempts, s.verdict = r.verdict, s.reason = r.reason,
        s.quarantine = r.quarantine,
        s.due_at = LEAST(COALESCE(r.due_at, TIMESTAMP'9999-12-31 00:00:00'), NOW(3) + INTERVAL (r.wait * 1000000) MICROSECOND)
"""  # noqa: S608 - a constant of this project
# What is not served takes its place behind the uploads; without a verdict, `file_url` is the file that was tried.
WRITE_TRIES = text(f"""{SETTLED},
        s.lane = IF(r.verdict = 'unverified', {RESCANS}, s.lane),
        s.file_url = IF(r.verdict IN ('waiting', 'unverified'), r.file_url, s.file_url)
""")
WRITE_FINDINGS = text(f"""{SETTLED},
        s.lane = {UPLOADS}, s.forced = FALSE, s.signature = r.signature, s.engine = r.engine, s.file_url = r.file_url,
        s.database_version = r.database_version, s.sha256 = r.sha256, s.size = r.size, s.identity = r.identity,
        s.found_type = '', s.mismatch = '', s.scanned_at = COALESCE(r.scanned_at, NOW(3))
""")
EVENTS = text(f"""
    INSERT INTO worker_scan_events (attachment_id, of_row, event, reason, signature, sha256)
    SELECT id, of_row, event, reason, IF(engine IS NULL, was_signature, signature), IF(engine IS NULL, was_sha256, sha256)
    FROM {RESULTS}
""")  # noqa: S608 - a constant of this project
FORGET = text("DELETE FROM worker_scans WHERE attachment_id IN :ids AND lease = :lease")
RELEASE = text("""
    UPDATE worker_scans SET lease = NULL, due_at = NOW(3), claims = claims - 1 WHERE attachment_id IN :ids AND lease = :lease
""")

# Verdicts on the same bytes, by idx_sha256. A copy keeps the time of the scan: copies of copies would never grow old.
KNOWN = text("""
    SELECT verdict, reason, signature, scanned_at FROM worker_scans
    WHERE sha256 = :sha256 AND engine = :engine AND database_version = :database AND verdict IN ('clean', 'infected')
      AND scanned_at > NOW(3) - INTERVAL :age SECOND
    ORDER BY verdict DESC, scanned_at DESC LIMIT 1
""")
# Infected rows alone, by idx_verdict: another row of the same file, whose content was moved away.
MOVED = text(f"""
    SELECT s.signature, s.sha256, s.size FROM worker_scans s FORCE INDEX (idx_verdict)
    JOIN message_attachments a ON a.id = s.attachment_id AND NOT {IS_ANOTHER_FILE} AND NOT {IS_ANOTHERS}
    WHERE s.verdict = 'infected' AND CAST(s.file_url AS BINARY) = CAST(:file_url AS BINARY) AND s.quarantine LIKE '%://%'
    ORDER BY s.attachment_id DESC LIMIT 1
""")  # noqa: S608 - a constant of this project
UNSCANNED = text("""
    SELECT s.attachment_id IS NULL FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id
    WHERE a.id = :id
""")
RELEASED = text("SELECT 1 FROM worker_scan_releases WHERE sha256 = :sha256")


class Queue:
    """The attachments that are due, as one run sees them: all its claims bear the run's lease."""

    def __init__(self, engine: Engine, lease: str) -> None:
        """`lease` is 32 hex digits that no other run uses."""
        self._engine = engine
        self._lease = lease

    def leave(self, attachment_id: int) -> bool:
        """Have the sweep scan this attachment if it has a verdict; return whether it does."""
        return transact(self._engine, lambda connection: connection.execute(LEAVE, {"id": attachment_id}).rowcount) > 0

    def claim_one(self, attachment_id: int) -> list[Attachment]:
        """Lease this attachment, whatever its record says; return an empty list if it is gone or another run has it."""

        def enter(connection: Connection) -> Sequence[Row[Any]]:
            drop_others(connection, [attachment_id])
            connection.execute(ENTER, {"id": attachment_id})
            return connection.execute(CLAIM_ONE, {"id": attachment_id}).all()

        return self._claim(enter)

    def claim_due(self, rows: int, idle: bool) -> list[Attachment]:
        """Lease up to `rows` attachments that are due, uploads first; one that a worker or clamd ended over alone,
        when nothing else is scanned (`idle`) and no other of its lane is due.
        """

        def choose(connection: Connection) -> Sequence[Row[Any]]:
            for lane in (UPLOADS, RESCANS):
                for broke_off in (False, True)[: 1 + idle]:
                    values = {"lane": lane, "broke_off": broke_off, "rows": 1 if broke_off else rows}
                    if due := connection.execute(CLAIM_DUE, values).all():
                        return due
            return []

        return self._claim(choose)

    def _claim(self, choose: Callable[[Connection], Sequence[Row[Any]]]) -> list[Attachment]:
        def lease(connection: Connection) -> dict[int, str | None]:
            due = {row.id: row.due_at for row in choose(connection)}
            if due:
                connection.execute(LEASE, {"ids": [*due], "lease": self._lease, "seconds": LEASE_SECONDS})
            return due

        if not (due := transact(self._engine, lease)):
            return []
        with self._engine.connect() as connection:
            rows = dicts(connection, LOAD, ids=[*due], lease=self._lease)
            found = [Attachment(**row, due_at=due[row["id"]]) for row in rows]
        if gone := due.keys() - {attachment.id for attachment in found}:  # the API has deleted them
            self._execute(FORGET, gone)
        return found

    def renew(self, ids: Collection[int]) -> None:
        """Keep the leases of attachments that are still being worked on."""
        self._execute(RENEW, ids, seconds=LEASE_SECONDS)

    def release(self, ids: Collection[int]) -> None:
        """Give back attachments that were claimed but not tried, at once for others to claim."""
        self._execute(RELEASE, ids, patience=SETTLE_PATIENCE_SECONDS)

    def _execute(self, statement: TextClause, ids: Collection[int], *, patience: float = 10.0, **values: object) -> None:
        parameters = {"ids": sorted(ids), "lease": self._lease, **values}
        transact(self._engine, lambda connection: connection.execute(statement, parameters), patience=patience)

    def settle(self, settlements: list[Settlement]) -> list[Settlement]:
        """Write results in one transaction; return those that were written. Safe to run twice.

        A row whose lease has passed to another run is left to that run; one that names another file by now is scanned again,
        and so is, after a while, one whose flags cannot be written: someone else holds it, or the schema refuses them.
        """
        to_flag = [settlement.attachment.id for settlement in settlements if settlement.flags]
        parameters = {"ids": [settlement.attachment.id for settlement in settlements], "lease": self._lease}

        def write(connection: Connection) -> list[Settlement]:
            free = lock_free(connection, to_flag)
            held = {tuple(row) for row in connection.execute(HELD, parameters)}
            ours = [each for each in settlements if each.attachment.names in held]
            flagged: set[int] = set()
            for flags in {each.flags for each in ours if each.flags}:
                ids = [each.attachment.id for each in ours if each.flags == flags and each.attachment.id in free]
                flagged.update(write_rows(connection, WRITE_FLAGS, ids, **flags._asdict()))
            true = [each.later if each.flags and each.attachment.id not in flagged else each for each in ours]
            if changed := {row[0] for row in held} - {each.attachment.id for each in true}:
                connection.execute(RELEASE, {"ids": sorted(changed), "lease": self._lease})
            _write(connection, true)
            return true

        return transact(self._engine, write, patience=SETTLE_PATIENCE_SECONDS)


def _write(connection: Connection, settlements: list[Settlement]) -> None:
    for statement, chosen in (
        (WRITE_FINDINGS, [settlement for settlement in settlements if settlement.finding]),
        (WRITE_TRIES, [settlement for settlement in settlements if not settlement.finding]),
        (EVENTS, [settlement for settlement in settlements if settlement.event]),
    ):
        if chosen:
            connection.execute(statement, {"results": orjson.dumps(chosen, default=list).decode()})
    for settlement in settlements:
        if event := settlement.tells:
            attachment, found = settlement.attachment, settlement.finding or settlement.attachment
            told = {"attachment_id": attachment.id, "of_row": attachment.of_row, "verdict": settlement.verdict}
            told |= {"reason": settlement.reason, "signature": found.signature, "sha256": found.sha256}
            outbox.emit(connection, event, told)


def lock_free(connection: Connection, ids: list[int]) -> set[int]:
    """Lock those of the shared rows that no one else holds; return their ids."""
    return {*connection.execute(FREE, {"ids": ids}).scalars()} if ids else set()


def without_held(connection: Connection, ids: list[int]) -> list[int]:
    """Return those that have no record, or one that no one else holds, which is locked then."""
    free = {*connection.execute(FREE_RECORDS, {"ids": ids}).scalars()} if ids else set()
    have = {*connection.execute(RECORDS, {"ids": ids}).scalars()} if ids else set()
    return [id_ for id_ in ids if id_ in free or id_ not in have]


def drop_others(connection: Connection, ids: list[int]) -> None:
    """Forget what is recorded of other rows that had these ids."""
    if others := connection.execute(OTHERS, {"ids": ids}).scalars().all():
        connection.execute(DROP, {"ids": others})


def is_unscanned(engine: Engine, attachment_id: int) -> int | None:
    """Return whether the row was never looked at; None if it is not there."""
    return transact(engine, lambda connection: connection.execute(UNSCANNED, {"id": attachment_id}).scalar())


def known(engine: Engine, sha256: str, version: Version, age: float) -> Finding | None:
    """Return the verdict on the same bytes of this ClamAV and these signatures, given within `age` seconds."""
    row = _one(engine, KNOWN, {"sha256": sha256, "age": age, "engine": version.engine, "database": version.database})
    return Finding(Kind(row.verdict), row.reason, signature=row.signature, scanned_at=row.scanned_at) if row else None


def moved(engine: Engine, file_url: str) -> Finding | None:
    """Return the finding on a file that another row of it had moved into quarantine."""
    row = _one(engine, MOVED, {"file_url": file_url})
    if row is None:
        return None
    return Finding(Kind.INFECTED, f"clamd found {row.signature}", row.signature, sha256=row.sha256, size=row.size)


def released(engine: Engine, sha256: str) -> bool:
    """Return whether a person has released these bytes."""
    return _one(engine, RELEASED, {"sha256": sha256}) is not None


def _one(engine: Engine, statement: TextClause, values: dict[str, object]) -> "Row[Any] | None":
    return transact(engine, lambda connection: connection.execute(statement, values).one_or_none())
