"""Celery's entry point of the typing indicators."""

import structlog
from celery import shared_task

from db.engine import get_engine
from tasks.shutdown import stop_requested
from tasks.typing_indicators.expire import expire as expire_rows
from tasks.words import did

log = structlog.get_logger(__name__)

# A run ends by itself after expire.SECONDS; the limit is for one that hangs.
TIME_LIMIT_SECONDS = 120


@shared_task(name="tasks.typing_indicators.expire", time_limit=TIME_LIMIT_SECONDS)
def expire() -> str:
    """Delete expired typing indicators; a run that finds another at work leaves it to that one."""
    rows = expire_rows(get_engine(), stop_requested)
    if rows is None:
        return "left to the run that is at work"
    if rows:
        log.info("expired typing indicators", rows=rows)
    return did("expired", rows=rows)
