"""Beat's scheduler: RedBeat that outlives outages of Redis, writes its entries with the lock held, and sends none paused."""

from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import structlog
from redbeat import RedBeatScheduler
from redbeat.schedulers import get_redis
from redis.exceptions import LockError, RedisError
from sqlalchemy.exc import SQLAlchemyError

from workers import paused_entries
from workers.operations.reader import engine

log = structlog.get_logger("workers.beat")

REFRESH_SECONDS = 2.0
# After a tick that failed.
PAUSE_SECONDS = 5.0


class Scheduler(RedBeatScheduler):  # type: ignore[misc]
    """RedBeat's own would write the entries at its start: a standby's file, or an older host's, would replace the holder's.

    It also ends when Redis or its lock is gone; but honcho ends every process once one of them has ended.
    """

    _holds = False
    _ticked_at = datetime.min.replace(tzinfo=UTC)
    _paused: Collection[str] = ()

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        # RedBeat leaves a lock without a key alone.
        key, self.lock_key = app.redbeat_conf.lock_key, None
        self.lock = get_redis(app).lock(key, timeout=self.lock_timeout, blocking=False)

    def setup_schedule(self) -> None:
        """Write nothing yet."""

    def tick(self, *_: Any, **__: Any) -> float:
        """Send what is due, if the lock is held or can be had. Whatever goes wrong, a later tick begins anew."""
        try:
            if not self._holds and not self.lock.acquire():
                return float(self.max_interval)
            self.lock.reacquire()  # raises LockError if this process was paused and lost it
            before, self._ticked_at = self._ticked_at, self.app.now()
            if not self._holds or self._ticked_at < before:
                self._write()
            self._holds = True
            # What was known of pauses holds while MySQL is away, or answers a byte at a time, for ever.
            refreshing = Thread(target=self._refresh, daemon=True)
            refreshing.start()
            refreshing.join(REFRESH_SECONDS)
            self._paused = paused_entries.paused(get_redis(self.app))
            self.lock.reacquire()  # the calls above take their time
            return float(super().tick())
        except LockError as error:
            log.warning("beat stands by: its lock was taken over, or Redis has lost it", reason=str(error))
        except RedisError as error:
            log.error("beat sends nothing: it cannot go on without Redis", reason=f"{type(error).__name__}: {error}")
        except Exception:
            log.exception("beat sends nothing: it has met a fault")
        self._holds = False
        return PAUSE_SECONDS

    def _write(self) -> None:
        """Write the entries, with the lock held and after the clock was set back."""
        log.info("this beat holds the lock and sends; others stand by")
        if not get_redis(self.app).exists(self.app.redbeat_conf.statics_key):
            log.warning(
                "Redis knows of no earlier beat: the first start, or Redis has lost its data; what fell due before now is"
                " not sent, each entry begins with its next time (chat-workers schedule run sends one at once)"
            )
        super().setup_schedule()
        for key in get_redis(self.app).zrange(self.app.redbeat_conf.schedule_key, 0, -1):
            entry = self.Entry.from_key(key, app=self.app)
            if entry.last_run_at > self._ticked_at:  # by a clock that was ahead: it would be silent until then
                entry.next(only_update_last_run_at=True)

    def _refresh(self) -> None:
        with suppress(SQLAlchemyError, RedisError):
            paused_entries.refresh(engine(), get_redis(self.app))

    def close(self) -> None:
        """Free the lock, if it is held. While Redis is away it ends by itself: a signal must end beat then, too."""
        with suppress(RedisError):
            self.lock.release()

    def maybe_due(self, entry: Any, **options: Any) -> float:
        """Send an entry that is due, unless an operator has paused it: then it stays due."""
        return float(self.max_interval if entry.name in self._paused else super().maybe_due(entry, **options))
