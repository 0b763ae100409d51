"""Celery's entry points of backups. Each looks first whether it is due, so that beat may ask as often as it likes."""

from collections.abc import Callable
from functools import partial

import structlog
from celery import shared_task

from db.engine import get_engine
from settings import ConfigurationError, get_settings
from tasks.backups.errors import BackupError, BusyError, StoppedError
from tasks.backups.ledger import DID, Run
from tasks.backups.run import Backups
from tasks.shutdown import stop_requested

log = structlog.get_logger(__name__)

# The longest that Celery's set-up allows (workers.celery_config): past it the broker would hand the message out again.
TIME_LIMIT_SECONDS = 3 * 3600


@shared_task(name="tasks.backups.daily", time_limit=TIME_LIMIT_SECONDS, throws=(BackupError, ConfigurationError))
def daily() -> str:
    """Dump the chat tables unless there is a dump since it was last due."""
    return _run(Backups.daily)


@shared_task(name="tasks.backups.weekly", time_limit=TIME_LIMIT_SECONDS, throws=(BackupError, ConfigurationError))
def weekly() -> str:
    """Seal the week's dumps into one encrypted archive unless the last seven days have one."""
    return _run(Backups.weekly)


@shared_task(name="tasks.backups.monthly", time_limit=TIME_LIMIT_SECONDS, throws=(BackupError, ConfigurationError))
def monthly() -> str:
    """Ship the newest archive to S3 unless this month has one."""
    return _run(Backups.monthly)


@shared_task(name="tasks.backups.drill", time_limit=TIME_LIMIT_SECONDS, throws=(BackupError, ConfigurationError))
def drill() -> str:
    """Restore the newest backup of the tier least recently drilled into a scratch schema, once a day, compare, and drop it."""
    return _run(partial(Backups.drill, if_due=True))


def _run(work: Callable[[Backups, Callable[[int], None]], Run]) -> str:
    try:
        run = work(Backups(get_engine(), get_settings()), _tick)
    except (StoppedError, BusyError) as error:
        log.warning("put off", reason=str(error))
        return f"put off: {error}"
    except (BackupError, ConfigurationError) as error:
        log.error("backup failed", reason=str(error))
        raise
    for sentence in run.ignored:
        log.warning("backup not counted", reason=sentence)
    if not run.artefact:
        return "not due"
    some = {name: value for name, value in (("tier", run.tier), ("rows", run.rows)) if value}
    log.info(DID[run.job], artefact=run.artefact, bytes=run.bytes, seconds=run.milliseconds / 1000, **some)
    return f"{DID[run.job]} {run.artefact}"


def _tick(_bytes: int) -> None:
    if stop_requested():
        raise StoppedError("the worker is stopping; what was under way was undone and is due again at the next tick of beat")
