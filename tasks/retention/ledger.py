"""The ledger of runs: who ran what, when, how many rows, why it ended; and the place where the next run goes on."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, RowMapping, text

from db.batches.place import Place
from db.batches.target import Target
from tasks.retention.policies import Policy

# A walk that was cut short longer ago than this begins anew: its cutoff is out of date.
CONTINUE_WITHIN = timedelta(days=7)

CUTOFF = text("SELECT NOW() - INTERVAL :seconds SECOND")
# Runs without an end while the lock is ours were killed.
BURY = text("""
    UPDATE worker_retention_runs SET ended_at = touched_at, ended_because = 'died'
    WHERE policy = :policy AND ended_at IS NULL
""")
LATEST = text("""
    SELECT rule, cutoff, after_key, until_key, started_at > NOW() - INTERVAL :seconds SECOND AS recent
    FROM worker_retention_runs WHERE policy = :policy ORDER BY id DESC LIMIT 1
""")
# No other run has the lock, and those that were killed are buried: one still open is our own, whose commit's answer was lost.
FORGET = text("DELETE FROM worker_retention_runs WHERE policy = :policy AND ended_at IS NULL")
OPEN = text("""
    INSERT INTO worker_retention_runs (policy, started_by, rule, cutoff, after_key, until_key)
    VALUES (:policy, :by, :rule, :cutoff, :after, :until)
""")
MOVE = text("""
    UPDATE worker_retention_runs
    SET cutoff = :cutoff, after_key = :after, until_key = :until, touched_at = NOW(3) WHERE id = :run
""")
RECORD = text("""
    UPDATE worker_retention_runs
    SET rows_done = rows_done + :rows, batches = batches + :batches, after_key = :after, touched_at = NOW(3) WHERE id = :run
""")
CLOSE = text("""
    UPDATE worker_retention_runs
    SET ended_at = NOW(3), ended_because = :why, held_seconds = :held, after_key = COALESCE(:after, after_key) WHERE id = :run
""")
DONE = text("SELECT rows_done FROM worker_retention_runs WHERE id = :run")
# The window began at the hour, today or yesterday. A run that failed, died or was stopped is made again within it.
DONE_SINCE = text("""
    SELECT COUNT(*) FROM worker_retention_runs
    WHERE policy = :policy AND started_at >= CURRENT_DATE + INTERVAL :hour HOUR - INTERVAL (HOUR(NOW()) < :hour) DAY
      AND started_at <= NOW(3) AND ended_because REGEXP '^(finished|its rows per run are done|its time is up)'
""")
RUNNING = text("""
    SELECT started_by, started_at FROM worker_retention_runs
    WHERE policy = :policy AND ended_at IS NULL ORDER BY id DESC LIMIT 1
""")
HISTORY = text("""
    SELECT id, policy, started_at, ended_at, started_by, ended_because, rows_done, batches, held_seconds, cutoff,
           TIMESTAMPDIFF(MICROSECOND, started_at, COALESCE(ended_at, touched_at)) / 1000000 AS seconds
    FROM worker_retention_runs WHERE (:policy IS NULL OR policy = :policy) ORDER BY id DESC LIMIT :rows
""")
# The pace of a policy: that of the fastest of the last ten runs that deleted anything; slower ones spent time reading rows that
# stay.
PACE = text("""
    SELECT MAX(rows_done / TIMESTAMPDIFF(MICROSECOND, started_at, ended_at)) * 1000000 FROM (
      SELECT rows_done, started_at, ended_at FROM worker_retention_runs
      WHERE policy = :policy AND ended_at IS NOT NULL AND rows_done >= 1000 ORDER BY id DESC LIMIT 10) AS lately
""")
LONGEST_WHY = 255


def rule_of(target: Target, age: timedelta) -> str:
    """Return the hash of what a walk does: one cut short is continued only by a run that does the same."""
    return hashlib.sha256(repr((target, age)).encode()).hexdigest()[:16]


def cutoff(connection: Connection, age: timedelta) -> object:
    """Return the moment so long ago, by the database's clock, in UTC and whole seconds."""
    return connection.execute(CUTOFF, {"seconds": int(age.total_seconds())}).scalar_one()


def unfinished(connection: Connection, policy: Policy, rule: str) -> Place | None:
    """Return where the policy's last run was cut short, if it did the same as `rule` and lately. Bury runs that were killed.

    Call it while holding the policy's lock.
    """
    connection.execute(BURY, {"policy": policy.name})
    seconds = int(CONTINUE_WITHIN.total_seconds())
    row = connection.execute(LATEST, {"policy": policy.name, "seconds": seconds}).one_or_none()
    if row is None or row.rule != rule or not row.recent:
        return None
    key = policy.target.key
    place = Place(row.cutoff, key.load(row.after_key), key.load(row.until_key))
    return None if place.finished else place


class Entry:
    """The ledger's entry of one run; its counts are written with the batches that they count. Made again, it is still one."""

    def __init__(self, connection: Connection, policy: Policy, by: str, rule: str, place: Place) -> None:
        parameters = {"policy": policy.name, "by": by, "rule": rule, **_stored(policy, place)}
        connection.execute(FORGET, {"policy": policy.name})
        self.run = int(connection.execute(OPEN, parameters).lastrowid)
        self._policy = policy

    def move(self, place: Place, connection: Connection) -> None:
        """Begin another walk in the same run."""
        connection.execute(MOVE, {"run": self.run, **_stored(self._policy, place)})

    def record(self, connection: Connection, place: Place, rows: int) -> None:
        after = _stored(self._policy, place)["after"]
        connection.execute(RECORD, {"run": self.run, "rows": rows, "batches": int(rows > 0), "after": after})

    def close(self, connection: Connection, why: str, held_seconds: float, place: Place | None) -> int:
        """Write the end; return the rows that the ledger counted."""
        after = _stored(self._policy, place)["after"] if place else None
        connection.execute(CLOSE, {"run": self.run, "why": why[:LONGEST_WHY], "held": held_seconds, "after": after})
        return int(connection.execute(DONE, {"run": self.run}).scalar_one())


def _stored(policy: Policy, place: Place) -> dict[str, object]:
    key = policy.target.key
    return {"cutoff": place.cutoff, "after": key.dump(place.after), "until": key.dump(place.until)}


def is_due(connection: Connection, policy: Policy, hour: int) -> bool:
    """Return whether no run has ended by itself since it was last this hour of the day, UTC."""
    return connection.execute(DONE_SINCE, {"policy": policy.name, "hour": hour}).scalar() == 0


def running(connection: Connection, policy: Policy) -> str:
    """Return for people who runs the policy now."""
    row = connection.execute(RUNNING, {"policy": policy.name}).one_or_none()
    return f"by {row.started_by} since {row.started_at:%Y-%m-%d %H:%M:%S}Z" if row else "by a run that has just begun"


def history(connection: Connection, policy: str | None, rows: int) -> Sequence[RowMapping]:
    """Return the latest runs, newest first."""
    return connection.execute(HISTORY, {"policy": policy, "rows": rows}).mappings().all()


def pace(connection: Connection, policy: Policy) -> float | None:
    """Return the rows per second of the policy's fastest run lately, None if there were none to measure by."""
    found = connection.execute(PACE, {"policy": policy.name}).scalar()
    return float(found) if found else None
