"""Celery's entry points of the virus scans."""

import structlog
from celery import shared_task

from tasks.attachments import run
from tasks.attachments.run import Summary

log = structlog.get_logger(__name__)

# A run claims for run.RUN_SECONDS; the limit covers the slowest transfer and scan of what was claimed last.
TIME_LIMIT_SECONDS = 1800


@shared_task(name="tasks.attachments.scan", time_limit=TIME_LIMIT_SECONDS)
def scan(attachment_id: int) -> None:
    """Scan one attachment. Called by the API after its commit; a message lost or too early is made good by the sweep."""
    _log("scanned", run.scan_one(int(attachment_id)), attachment_id=int(attachment_id))


@shared_task(name="tasks.attachments.sweep", time_limit=TIME_LIMIT_SECONDS)
def sweep() -> None:
    """Scan what is due and what no one enqueued."""
    summary = run.sweep()
    _log("swept", summary)
    if summary.more:
        sweep.apply_async(expires=60)


def _log(event: str, summary: Summary, **fields: int) -> None:
    if summary.verdicts or summary.given_back:
        log.info(event, **summary.verdicts, given_back=summary.given_back, **fields)
