"""Celery's entry point of events."""

import structlog
from celery import shared_task

from db.engine import get_engine
from db.locks import LockedError
from settings import get_settings
from tasks.events import deliver as events
from tasks.shutdown import stop_requested
from tasks.words import did

log = structlog.get_logger(__name__)

# A run ends by itself after deliver.RUN_SECONDS and the calls then under way; the limit is for one that hangs.
TIME_LIMIT_SECONDS = 120


@shared_task(name="tasks.events.deliver", time_limit=TIME_LIMIT_SECONDS)
def deliver() -> str:
    """Call EVENTS_URL with the events that are due."""
    try:
        taken, faults = events.deliver(get_engine(), events.Receiver(get_settings()).send, stop_requested)
    except LockedError:
        return "left to the run that is at work"
    if faults:
        log.warning("events wait", taken=taken, failed=len(faults), reason=faults[-1])
    return did("delivered", taken=taken, failed=len(faults))
