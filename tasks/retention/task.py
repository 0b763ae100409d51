"""Celery's entry points of retention: one task for each policy of the shared tables, one for the workers' own."""

import time

import structlog
from celery import current_task, shared_task

from db.batches.target import Target
from db.engine import get_engine
from tasks.jobs import BEAT, STARTED_BY
from tasks.retention.files import Files
from tasks.retention.policies import POLICIES
from tasks.retention.rules import DISABLED
from tasks.retention.run import FAILURES, NOT_DUE, run_policy
from tasks.shutdown import stop_requested

log = structlog.get_logger(__name__)

# The runs of a task end by themselves after so long, and the batch then under way; the limit is for one that hangs.
RUNS_SECONDS = 2 * 3600
TIME_LIMIT_SECONDS = RUNS_SECONDS + 600


@shared_task(name="tasks.retention.purge_notifications", time_limit=TIME_LIMIT_SECONDS)
def purge_notifications() -> str:
    """Delete old notifications that were read, and by what other policies are enabled."""
    return _run(*_of("chat_notifications"), daily=True)


@shared_task(name="tasks.retention.deactivate_conversations", time_limit=TIME_LIMIT_SECONDS)
def deactivate_conversations() -> str:
    """Close idle conversations, if that policy is enabled, and deactivate those that were closed long ago."""
    return _run("idle_conversations", "closed_conversations", daily=True)


@shared_task(name="tasks.retention.purge_typing_indicators", time_limit=TIME_LIMIT_SECONDS)
def purge_typing_indicators() -> str:
    """Delete typing indicators that the minute job has missed."""
    return _run("typing_indicators")


@shared_task(name="tasks.retention.purge_worker_tables", time_limit=TIME_LIMIT_SECONDS)
def purge_worker_tables() -> str:
    """Delete old rows of the workers' own tables, and old files of theirs."""
    return _run(*_of("worker_"), *(name for name, each in POLICIES.items() if isinstance(each.target, Files)), daily=True)


def _of(tables: str) -> list[str]:
    """Return the policies of tables whose names begin so."""
    return [name for name, each in POLICIES.items() if isinstance(each.target, Target) and each.target.table.startswith(tables)]


def _run(*names: str, daily: bool = False) -> str:
    """Run the policies one after another; one that fails does not keep the next from running. Raise the last failure.

    Beat asks each hour, and what is `daily` runs if it is due; whoever else sends the message wants it now.

    Each has its share of the time that is left, so that one with much to do leaves some to those behind it.
    """
    failure: Exception | None = None
    headers = (current_task.request.headers if current_task else None) or {}
    said, by = list[str](), str(headers.get(STARTED_BY) or "a message")  # the ledger's word for who names nobody
    deadline = time.monotonic() + RUNS_SECONDS
    for nth, name in enumerate(names):
        share = (deadline - time.monotonic()) / (len(names) - nth)
        try:
            report = run_policy(
                get_engine(), POLICIES[name], by=by, if_due=daily and by == BEAT, seconds=share, stop=stop_requested
            )
        except Exception as error:  # raised below, once the others have run
            log.error("retention failed", policy=name, why=str(error), exc_info=not isinstance(error, FAILURES))
            failure = error
            continue
        if report.why == DISABLED:
            continue
        said.append(f"{name}: {f'{report.rows:,} rows, {report.why}' if report.started else f'did not run: {report.why}'}")
        if report.started and (report.rows or report.why != "finished"):
            log.info("retention", policy=name, rows=report.rows, seconds=round(report.seconds, 1), why=report.why)
        elif not report.started and report.why != NOT_DUE:
            log.info("retention did not run", policy=name, why=report.why)
    if failure:
        raise failure
    return "; ".join(said)
