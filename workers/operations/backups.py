"""Backups and drills: when each was last done, how large it was, whether the last try failed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection, text

from db.rows import dicts
from settings import get_settings
from tasks.jobs import configured
from tasks.words import duration, moment, size
from workers.operations.report import Section, Table, Trouble, gauge

# The newest run of each job, tier and outcome, by a loose scan of idx_job (job, tier, outcome, ended_at).
LATEST = text("""
    SELECT r.job, r.tier, r.outcome, r.ended_at, r.bytes, r.row_count, r.milliseconds / 1000 AS seconds, r.detail,
           TIMESTAMPDIFF(SECOND, r.ended_at, NOW(3)) AS age
    FROM (SELECT job, tier, outcome, MAX(ended_at) AS ended_at FROM worker_backup_runs GROUP BY job, tier, outcome) AS latest
    STRAIGHT_JOIN worker_backup_runs r ON r.job = latest.job AND r.tier = latest.tier AND r.outcome = latest.outcome
      AND r.ended_at = latest.ended_at
    ORDER BY r.job, r.tier LIMIT 50
""")

TASKS = "tasks.backups."

# How old the last success may be; a drill proves one tier a day, in turn.
OLDEST = {
    "daily": timedelta(hours=26),
    "weekly": timedelta(days=8),
    "monthly": timedelta(days=33),
    "drill": timedelta(days=2),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One job and, of a drill, its tier: the last success and the last failure, if there were any."""

    job: str
    tier: str
    done: dict[str, Any] | None
    failed: dict[str, Any] | None

    @property
    def name(self) -> str:
        return f"{self.job} of {self.tier}" if self.tier else self.job

    @property
    def last_failed(self) -> bool:
        """True if the last try failed."""
        return self.failed is not None and (self.done is None or self.failed["ended_at"] > self.done["ended_at"])


@dataclass(frozen=True, slots=True)
class Backups:
    """All jobs that ever ran, and those that the environment is set up for."""

    jobs: list[Job]
    stale: dict[str, float | None]
    """Jobs whose last success is too old: its age in seconds, None if there was none."""


def read(connection: Connection) -> Backups:
    """Return the last runs."""
    latest = {(row["job"], row["tier"], row["outcome"]): row for row in dicts(connection, LATEST)}
    known = {(job, tier) for job, tier, _ in latest}
    expected = _expected()
    known |= {(job, "") for job in expected if job not in {name for name, _ in known}}
    jobs = [Job(job, tier, latest.get((job, tier, "done")), latest.get((job, tier, "failed"))) for job, tier in sorted(known)]
    stale: dict[str, float | None] = {}
    for job in expected:
        ages = [float(each.done["age"]) for each in jobs if each.job == job and each.done]
        if not ages or min(ages) > OLDEST[job].total_seconds():
            stale[job] = min(ages, default=None)
    return Backups(jobs, stale)


def _expected() -> list[str]:
    return [task.removeprefix(TASKS) for task in configured(get_settings()) if task.startswith(TASKS)]


def metrics(found: Backups) -> Iterator[Metric]:
    """Yield the gauges. A job that is set up and was never done has the timestamp 0, which is older than any alert allows."""
    rows = [((each.job, each.tier or "none"), each) for each in found.jobs]
    labels = ("backup", "tier")
    yield gauge(
        "backup_last_success_timestamp_seconds",
        "When the backup or drill was last done, 0 for never.",
        [(k, _seconds(each.done["ended_at"]) if each.done else 0) for k, each in rows],
        *labels,
    )
    yield gauge(
        "backup_last_success_size_bytes",
        "Size of what was last made or proved.",
        [(k, each.done["bytes"] if each.done else None) for k, each in rows],
        *labels,
    )
    yield gauge(
        "backup_last_success_rows",
        "Rows that were dumped, or proved by a drill.",
        [(k, each.done["row_count"] if each.done else None) for k, each in rows],
        *labels,
    )
    yield gauge(
        "backup_last_success_duration_seconds",
        "How long it took.",
        [(k, float(each.done["seconds"]) if each.done else None) for k, each in rows],
        *labels,
    )
    yield gauge("backup_last_run_failed", "1 if the last try failed.", [(k, each.last_failed) for k, each in rows], *labels)


def troubles(found: Backups) -> Iterator[Trouble]:
    """Yield what is wrong now."""
    for job, age in found.stale.items():
        what = "restore drill" if job == "drill" else f"{job} backup"
        last = "None was ever done" if age is None else f"The last was done {duration(age)} ago"
        yield Trouble("ChatWorkersBackupStale", "critical", f"There is no recent {what}. {last}.")
    for each in found.jobs:
        if each.failed and each.last_failed:
            yield Trouble("ChatWorkersBackupFailed", "warning", f"The last {each.name} failed: {each.failed['detail']}")


def tables(found: Backups) -> Iterator[Table]:
    """Yield what a person wants to see."""
    yield Table(
        "Backups and drills",
        ("job", "last done", "size", "rows", "took", "last failed"),
        tuple(
            (
                each.name,
                moment(each.done["ended_at"]) if each.done else "never",
                size(each.done["bytes"]) if each.done else "-",
                f"{each.done['row_count']:,}" if each.done else "-",
                duration(float(each.done["seconds"])) if each.done else "-",
                f"{moment(each.failed['ended_at'])}: {each.failed['detail']}" if each.failed else "never",
            )
            for each in found.jobs
        ),
        "not set up: BACKUP_DIR is not set",
    )


def _seconds(when: datetime) -> float:
    return when.replace(tzinfo=UTC).timestamp()


SECTION = Section("backups", read, metrics, troubles, tables)
