"""Retention: each policy's last run, and the rows it did in a day; and what operators ordered, whose record it keeps."""

from sqlalchemy import Connection, text

from tasks.facts import Alert, Column, Fact, Row, Table, rows
from tasks.retention.ledger import is_running
from tasks.retention.policies import POLICIES
from tasks.retention.rules import DISABLED, RuleError, read
from tasks.words import moment

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
    """Return the last runs. That one was killed only the next run writes down."""
    found = rows(connection, RUNS)
    for row in found:
        if row["ended_at"] is None and not is_running(connection.engine, row["policy"]):
            row |= {"ended_because": "died", "retention_last_run_failed": 1}
    return found


# By idx_policy, which holds the rest of few rows; the table's own rows are a dozen. A policy that never walked counts from its
# row's last change.
WALKS = text("""
    SELECT p.name AS policy, TIMESTAMPDIFF(SECOND, COALESCE(MAX(r.started_at), p.updated_at), NOW(3)) AS seconds
    FROM worker_retention_policies p LEFT JOIN worker_retention_runs r
      ON r.policy = p.name AND r.ended_because LIKE 'finished%' AND r.started_at <= NOW(3)
    GROUP BY p.name, p.updated_at ORDER BY p.name LIMIT 50
""")


def _policies(connection: Connection) -> list[Row]:
    """Return a row for each policy that is not disabled; one that is paused or unusable deletes nothing, so its age grows."""
    found = []
    for row in rows(connection, WALKS):
        try:
            why = read(connection, POLICIES[row["policy"]]).why_not(any_hour=True) if row["policy"] in POLICIES else DISABLED
        except RuleError as error:
            why = f"unusable: {error}"
        if why != DISABLED:
            found.append({"policy": row["policy"], "retention_walk_age_seconds": abs(row["seconds"]), "now": why or "enabled"})
    return found


# By idx_began_at; of one command the name of who gave the last order.
ORDERS = text("""
    SELECT what, COUNT(*) AS operator_orders_last_day, MAX(began_at) AS latest,
           SUBSTRING_INDEX(GROUP_CONCAT(who ORDER BY id DESC SEPARATOR '\n'), '\n', 1) AS who
    FROM worker_audit WHERE began_at >= NOW(3) - INTERVAL 1 DAY GROUP BY what ORDER BY latest DESC LIMIT 20
""")

TABLES = (
    Table("policies", "Retention policies", ("policy",), _policies, (
        Fact("retention_walk_age_seconds", "Age of the last run that looked at every row, of policies that are not disabled.",
             "last full walk",
             Alert("ChatWorkersRetentionStale", "warning",
                   "The retention policy {policy} has not gone through its table for {value}", ": {now}", above=3 * 86_400)),
        Column("now", lambda row: row["now"]),
    )),
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
    Table("orders", "Orders of operators, last 24 hours", ("what",), ORDERS, (
        Fact("operator_orders_last_day", "Orders of operators in the last 24 hours that changed something.", "orders"),
        Column("last at", lambda row: moment(row["latest"])),
        Column("by", lambda row: row["who"]),
    )),
)  # fmt: skip
