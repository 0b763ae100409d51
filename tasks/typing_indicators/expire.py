"""Delete expired typing indicators, in batches that do not block the API's writes."""

from collections.abc import Callable

from sqlalchemy import Engine

from db.batches.target import Target
from db.batches.throttle import Throttle
from db.batches.walk import Limits, walk
from db.locks import LockedError, hold
from settings import get_settings
from tasks.pause import POLICY, RESTORE, paused

LOCK = "typing_indicators:expire"
# The client writes both; one whose clock or intention is wrong may not be shown typing for a year.
EXPIRED = Target(
    "typing_indicators",
    "(expires_at < NOW() OR expires_at > NOW() + INTERVAL 1 DAY OR started_at < NOW() - INTERVAL 1 HOUR)",
)
# An operator's pause of the retention policy stops this job too, and so does a restore.
PAUSES = {f"{POLICY}typing_indicators", RESTORE}

# A minute's worth of even a large chat is a few batches; what an outage has piled up is spread over several minutes.
ROWS = 500_000
SECONDS = 45
BATCH_ROWS = 2000


def expire(engine: Engine, stop: Callable[[], bool] = lambda: False) -> int | None:
    """Delete the indicators that have expired by the database's clock; return how many, None if another run is at it."""
    settings = get_settings()
    limits = Limits(ROWS, SECONDS, BATCH_ROWS, settings.batches_seconds)
    try:
        with Throttle.of(settings) as throttle, hold(engine, LOCK) as lock:

            def halt() -> str | None:
                if stop():
                    return "asked to stop"
                return None if PAUSES.isdisjoint(paused(engine)) else "paused"

            return walk(engine, EXPIRED, None, limits, lock, throttle, halt=halt).rows
    except LockedError:
        return None
