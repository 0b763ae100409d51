"""Retention: each policy's last run, and the rows it did in a day."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection, text

from db.rows import dicts
from tasks.words import moment
from workers.operations.report import Section, Table, Trouble, gauge

# The newest run of each policy, by a loose scan of idx_policy (policy, id); the day's rows by idx_started_at.
LATEST = text("""
    SELECT r.policy, r.started_at, r.ended_at, r.ended_because, r.rows_done,
           r.ended_because LIKE 'failed%' OR r.ended_because = 'died' AS failed
    FROM (SELECT MAX(id) AS id FROM worker_retention_runs GROUP BY policy) AS latest
    STRAIGHT_JOIN worker_retention_runs r ON r.id = latest.id ORDER BY r.policy LIMIT 50
""")
LAST_DAY = text("""
    SELECT policy, SUM(rows_done) AS rows_done FROM worker_retention_runs
    WHERE started_at >= NOW(3) - INTERVAL 1 DAY GROUP BY policy LIMIT 50
""")


@dataclass(frozen=True, slots=True)
class Retention:
    """Each policy's last run."""

    policies: list[dict[str, Any]]


def read(connection: Connection) -> Retention:
    """Return the last runs."""
    day = {row["policy"]: int(row["rows_done"]) for row in dicts(connection, LAST_DAY)}
    return Retention([{**row, "last_day_rows": day.get(row["policy"], 0)} for row in dicts(connection, LATEST)])


def metrics(found: Retention) -> Iterator[Metric]:
    """Yield the gauges, a series for each policy that ever ran."""
    rows = [((p["policy"],), p) for p in found.policies]
    yield gauge(
        "retention_last_day_rows", "Rows done in the last 24 hours.", [(k, p["last_day_rows"]) for k, p in rows], "policy"
    )
    yield gauge("retention_last_run_rows", "Rows done by the last run.", [(k, p["rows_done"]) for k, p in rows], "policy")
    yield gauge(
        "retention_last_run_timestamp_seconds",
        "When the last run began.",
        [(k, p["started_at"].replace(tzinfo=UTC).timestamp()) for k, p in rows],
        "policy",
    )
    yield gauge(
        "retention_last_run_failed",
        "1 if the last run failed or was killed.",
        [(k, bool(p["failed"])) for k, p in rows],
        "policy",
    )


def troubles(found: Retention) -> Iterator[Trouble]:
    """Yield what is wrong now."""
    for policy in found.policies:
        if policy["failed"]:
            yield Trouble(
                "ChatWorkersRetentionFailed",
                "warning",
                f"The last run of the retention policy {policy['policy']} {policy['ended_because']}.",
            )


def tables(found: Retention) -> Iterator[Table]:
    """Yield what a person wants to see."""
    yield Table(
        "Retention, last runs",
        ("policy", "began", "ended", "rows", "rows in 24 h"),
        tuple(
            (p["policy"], moment(p["started_at"]), _end(p["ended_at"], p["ended_because"]), f"{p['rows_done']:,}",
             f"{p['last_day_rows']:,}")
            for p in found.policies
        ),
        "none ran yet",
    )  # fmt: skip


def _end(at: datetime | None, why: str | None) -> str:
    return "running" if at is None else why or "-"


SECTION = Section("retention", read, metrics, troubles, tables)
