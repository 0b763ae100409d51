"""Celery's entry points of the virus scans."""

import structlog
from celery import shared_task

from db.engine import get_engine
from tasks import early
from tasks.attachments import run
from tasks.attachments.queue import is_unscanned
from tasks.attachments.run import Summary
from tasks.words import did

log = structlog.get_logger(__name__)

# A run claims for run.RUN_SECONDS; the limit covers the slowest transfer and scan of what was claimed last.
TIME_LIMIT_SECONDS = 1800


@shared_task(name="tasks.attachments.scan", time_limit=TIME_LIMIT_SECONDS)
def scan(attachment_id: int) -> str:
    """Scan one attachment. Called by the API after its commit; a message that is lost is made good by the sweep."""
    summary = run.scan_one(attachment_id)
    if early.is_direct(scan) and summary.absent:
        early.look_again(scan, lambda: is_unscanned(get_engine(), attachment_id), attachment_id, each=0.5)
    return _log("scanned", summary, attachment_id=attachment_id)


@shared_task(name="tasks.attachments.sweep", time_limit=TIME_LIMIT_SECONDS)
def sweep() -> str:
    """Scan what is due and what no one enqueued."""
    summary = run.sweep()
    if summary.more:
        sweep.apply_async(expires=60)
    return _log("swept", summary)


def _log(event: str, summary: Summary, **fields: int) -> str:
    if summary.verdicts or summary.given_back:
        log.info(event, **summary.verdicts, given_back=summary.given_back, **fields)
    return did(event, **summary.verdicts, given_back=summary.given_back)
