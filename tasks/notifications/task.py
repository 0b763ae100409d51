"""Celery's entry points of push delivery."""

from functools import partial

import structlog
from celery import shared_task
from kombu.exceptions import OperationalError

from db.engine import get_engine
from tasks import early
from tasks.jobs import STARTED_BY, WORKER
from tasks.notifications import run
from tasks.notifications.drain import Summary
from tasks.notifications.nudges import take_waiting
from tasks.notifications.queue import has_unclaimed
from tasks.shutdown import stop_requested
from tasks.words import did

log = structlog.get_logger(__name__)

# A run ends by itself after drain.RUN_SECONDS and what is then under way; the limit is for one that hangs.
TIME_LIMIT_SECONDS = 200
# A nudge that no worker took for so long has been overtaken by beat's.
NUDGE_EXPIRES_SECONDS = 60
# A look for something to withdraw reads 300 rows.
WITHDRAWALS_EACH_SECONDS = 1.0


@shared_task(name="tasks.notifications.drain", time_limit=TIME_LIMIT_SECONDS)
def drain() -> str:
    """Send PENDING notifications until there are none left. Nudged by the API; a beat entry is the safety net."""
    # A run that is to stop claims nothing: the nudges, and beat's tick among them, are another worker's then.
    taken = 0 if stop_requested() else take_waiting()
    summary = run.drain(on_backlog=_nudge)
    if summary.more or (taken and stop_requested()):
        _nudge()
    elif (taken or early.is_direct(drain)) and not summary.rows:
        early.look_again(drain, lambda: has_unclaimed(get_engine()))
    return _log("drained", summary)


@shared_task(name="tasks.notifications.retry_failed", time_limit=TIME_LIMIT_SECONDS)
def retry_failed() -> str:
    """Send FAILED notifications that are due, and rows whose worker died."""
    summary = run.retry_failed()
    if summary.more:
        retry_failed.apply_async(expires=NUDGE_EXPIRES_SECONDS)
    return _log("retried", summary)


@shared_task(name="tasks.notifications.withdraw", time_limit=TIME_LIMIT_SECONDS)
def withdraw(recipient_id: int, conversation_id: int) -> str:
    """Take away what a recipient's devices show of messages that were read elsewhere or deleted. Called by the API.

    There is no sweep: a message that is lost leaves what is shown as it is. Rows that wait for their push are sent first.
    """
    if has_unclaimed(get_engine()):
        drain()
    told = run.withdraw(recipient_id)
    if told is None:
        come = partial(run.can_withdraw, recipient_id)
        early.look_again(withdraw, come, recipient_id, conversation_id, each=WITHDRAWALS_EACH_SECONDS)
    return did("withdrawn", devices=told)


@shared_task(name="tasks.notifications.adopt", time_limit=TIME_LIMIT_SECONDS)
def adopt() -> str:
    """Enter FAILED notifications that no worker knows of: the API's own, or from before the workers."""
    adopted = run.adopt()
    if adopted:
        log.info("adopted", notifications=adopted)
    return did("adopted", notifications=adopted)


def _nudge() -> None:
    try:
        drain.apply_async(expires=NUDGE_EXPIRES_SECONDS, headers={STARTED_BY: WORKER})
    except OperationalError as error:
        log.warning("no nudge for the rest; beat's tick brings it", error=str(error))


def _log(event: str, summary: Summary) -> str:
    amounts = {status.lower(): rows for status, rows in summary.rows.items()} | {"given_back": summary.given_back}
    if any(amounts.values()):
        log.info(event, **amounts)
    return did(event, **amounts)
