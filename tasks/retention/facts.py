"""Retention: each policy's last run, and the rows it did in a day."""

from sqlalchemy import Connection, text

from db.locks import is_held
from tasks.facts import Alert, Fact, Row, Table, rows
from tasks.retention.policies import POLICIES
from tasks.retention.run import lock_of

# The newest run of each policy, by a loose scan of idx_policy (policy, id); the day's rows by idx_started_at.
RUNS = text("""
    SELECT r.policy, r.ended_at, r.ended_because, r.rows_done AS retention_last_run_rows,
           UNIX_TIMESTAMP(r.started_at) AS retention_last_run_timestamp_seconds,
           CAST(COALESCE(day.rows_done, 0) AS SIGNED) AS retention_last_day_rows,
           COALESCE(r.ended_because LIKE 'failed%', 0) AS retention_last_run_failed
    FROM (SELECT MAX(id) AS id FROM worker_retention_runs GROUP BY policy) AS latest
    STRAIGHT_JOIN worker_retention_runs r ON r.id = latest.id
    LEFT JOIN (SELECT policy, SUM(rows_done) AS rows_done FROM worker_retention_runs
               WHERE started_at >= NOW(3) - INTERVAL 1 DAY GROUP BY policy) AS day ON day.policy = r.policy
    ORDER BY r.policy LIMIT 50
""")


def _runs(connection: Connection) -> list[Row]:
    """Return the last runs. One without an end whose lock is free was killed; only the next run writes that down."""
    found = rows(connection, RUNS)
    for row in found:
        policy = POLICIES.get(row["policy"])
        if row["ended_at"] is None and not (policy and is_held(connection.engine, lock_of(policy))):
            row |= {"ended_because": "died", "retention_last_run_failed": 1}
    return found


TABLES = (
    Table("runs", "Retention, last runs", ("policy",), _runs, (
        Fact("retention_last_run_timestamp_seconds", "When the last run began.", "began"),
        Fact("retention_last_run_failed",
             "1 if the last run failed or was killed; what it had done is done, and the next goes on from there.", "ended",
             Alert("ChatWorkersRetentionFailed", "warning",
                   "The last run of the retention policy {policy} did not end well", ": it {ended_because}",
                   above=0, minutes=5),
             show=lambda row: row["ended_because"] or "running"),
        Fact("retention_last_run_rows", "Rows done by the last run.", "rows"),
        Fact("retention_last_day_rows", "Rows done in the last 24 hours.", "rows in 24 h"),
    ), empty="none ran yet"),
)  # fmt: skip
