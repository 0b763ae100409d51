"""Celery's entry points of retention: one task for each policy of the shared tables, one for the workers' own."""

import structlog
from celery import shared_task

from db.engine import get_engine
from tasks.retention.policies import POLICIES
from tasks.retention.rules import RuleError
from tasks.retention.run import RunFailedError, run_policy
from tasks.shutdown import stop_requested

log = structlog.get_logger(__name__)

# A run ends by itself after its minutes (120 at most) and the batch then under way; the limit is for one that hangs.
TIME_LIMIT_SECONDS = 2 * 3600 + 600

OWN_TABLES = ("delivery_history", "delivery_counts", "scan_events", "orphaned_scans", "retention_runs")


@shared_task(name="tasks.retention.purge_notifications", time_limit=TIME_LIMIT_SECONDS)
def purge_notifications() -> None:
    """Delete notifications that were read and are old."""
    _run("read_notifications")


@shared_task(name="tasks.retention.deactivate_conversations", time_limit=TIME_LIMIT_SECONDS)
def deactivate_conversations() -> None:
    """Close idle conversations, if that policy is enabled, and deactivate those that were closed long ago."""
    _run("idle_conversations", "closed_conversations")


@shared_task(name="tasks.retention.purge_typing_indicators", time_limit=TIME_LIMIT_SECONDS)
def purge_typing_indicators() -> None:
    """Delete typing indicators that the minute job has missed."""
    _run("typing_indicators")


@shared_task(name="tasks.retention.purge_worker_tables", time_limit=TIME_LIMIT_SECONDS)
def purge_worker_tables() -> None:
    """Delete what is old in the workers' own tables."""
    _run(*OWN_TABLES)


def _run(*names: str) -> None:
    """Run the policies one after another; one that fails does not keep the next from running. Raise the last failure."""
    failure: Exception | None = None
    for name in names:
        try:
            report = run_policy(get_engine(), POLICIES[name], by="beat", stop=stop_requested)
        except (RunFailedError, RuleError) as error:
            log.error("retention failed", policy=name, why=str(error))
            failure = error
            continue
        if report.started and (report.rows or not report.finished):
            log.info("retention", policy=name, rows=report.rows, seconds=round(report.seconds, 1), why=report.why)
        elif not report.started:
            log.info("retention did not run", policy=name, why=report.why)
    if failure:
        raise failure
