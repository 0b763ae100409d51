"""The ledger of runs: who ran what, when, how many rows, why it ended."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from db.locks import is_held
from db.rows import dicts
from tasks import outbox, pause
from tasks.retention.policies import Policy

CUTOFF = text("SELECT NOW() - INTERVAL :seconds SECOND")
# Runs without an end while the lock is ours were killed.
BURY = text("""
    UPDATE worker_retention_runs SET ended_at = touched_at, ended_because = 'died'
    WHERE policy = :policy AND ended_at IS NULL
""")
# `rule` and two more columns are those of an earlier version, which went on from a place in the table.
OPEN = text("INSERT INTO worker_retention_runs (policy, started_by, cutoff, rule) VALUES (:policy, :by, :cutoff, '')")
RECORD = text("""
    UPDATE worker_retention_runs SET rows_done = rows_done + :rows, batches = batches + 1, touched_at = NOW(3) WHERE id = :run
""")
CLOSE = text("""
    UPDATE worker_retention_runs SET ended_at = NOW(3), ended_because = :why, held_seconds = :held WHERE id = :run
""")
DONE = text("SELECT rows_done FROM worker_retention_runs WHERE id = :run")
# The window began at the hour, today or yesterday. A run that failed, died or was stopped is made again within it.
DONE_SINCE = text("""
    SELECT COUNT(*) FROM worker_retention_runs
    WHERE policy = :policy AND started_at >= CURRENT_DATE + INTERVAL :hour HOUR - INTERVAL (HOUR(NOW()) < :hour) DAY
      AND started_at <= NOW(3) AND ended_because REGEXP '^(finished|its rows per run are done|its time is up)'
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


def cutoff(connection: Connection, age: timedelta) -> datetime:
    """Return the moment so long ago, by the database's clock, in UTC and whole seconds."""
    return connection.execute(CUTOFF, {"seconds": int(age.total_seconds())}).scalar_one()  # type: ignore[no-any-return]


def bury(connection: Connection, policy: Policy) -> None:
    """Write the end of runs that were killed. Call it while holding the policy's lock."""
    if connection.execute(BURY, {"policy": policy.name}).rowcount:
        outbox.emit(connection, "retention.failed", {"policy": policy.name, "why": "died"})


class Entry:
    """The ledger's entry of one run; its counts are written with their batches. The next run buries one that was made twice."""

    def __init__(self, connection: Connection, policy: Policy, by: str, age: timedelta) -> None:
        self.policy, self.cutoff = policy.name, cutoff(connection, age)
        self.run = int(connection.execute(OPEN, {"policy": policy.name, "by": by, "cutoff": self.cutoff}).lastrowid)

    def record(self, connection: Connection, rows: int) -> None:
        connection.execute(RECORD, {"run": self.run, "rows": rows})

    def close(self, connection: Connection, why: str, held_seconds: float, *, failed: bool) -> int:
        """Write the end; return the rows that the ledger counted."""
        connection.execute(CLOSE, {"run": self.run, "why": why[:LONGEST_WHY], "held": held_seconds})
        rows = int(connection.execute(DONE, {"run": self.run}).scalar_one())
        event = {"policy": self.policy, "rows": rows, "why": why[:LONGEST_WHY]}
        outbox.emit(connection, "retention.failed" if failed else "retention.done", event)
        return rows


def is_due(connection: Connection, policy: Policy, hour: int) -> bool:
    """Return whether no run has ended by itself since it was last this hour of the day, UTC."""
    return connection.execute(DONE_SINCE, {"policy": policy.name, "hour": hour}).scalar() == 0


def history(connection: Connection, policy: str | None, rows: int) -> list[dict[str, Any]]:
    """Return the latest runs, newest first."""
    return dicts(connection, HISTORY, policy=policy, rows=rows)


def is_running(engine: Engine, policy: str) -> bool:
    """Return whether a run of the policy is under way; of one without an end whose lock is free the process was killed."""
    return is_held(engine, lock_of(policy))


def lock_of(policy: str) -> str:
    return pause.POLICY + policy


def pace(connection: Connection, policy: Policy) -> float | None:
    """Return the rows per second of the policy's fastest run lately, None if there were none to measure by."""
    found = connection.execute(PACE, {"policy": policy.name}).scalar()
    return float(found) if found else None
