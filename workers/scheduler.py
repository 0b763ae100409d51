"""Beat's scheduler: RedBeat, which writes its entries only once it holds the lock, and sends none that is paused."""

from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import structlog
from redbeat import RedBeatScheduler
from redbeat.schedulers import get_redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from workers import paused_entries
from workers.operations.reader import engine

log = structlog.get_logger("workers.beat")

REFRESH_SECONDS = 2.0


class Scheduler(RedBeatScheduler):  # type: ignore[misc]
    """RedBeat's own would write them at its start: a standby's file, or an older host's, would replace the holder's."""

    _written = False
    _ticked_at = datetime.min.replace(tzinfo=UTC)
    _paused: Collection[str] = ()
    _refreshing = Thread()

    def setup_schedule(self) -> None:
        """Write nothing yet."""

    def tick(self, *arguments: Any, **options: Any) -> float:
        """Send what is due. The first time, and after the clock was set back, write the entries: beat has its lock by then."""
        before, self._ticked_at = self._ticked_at, self.app.now()
        if not self._written or self._ticked_at < before:
            if self.lock is None:  # Celery has swallowed and logged what RedBeat met
                raise RedisError("its lock could not be taken")
            self.lock.extend(int(self.lock_timeout))  # raises LockError if this process was paused and lost it
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
            self._written = True
        # What beat knew of them holds while MySQL is away, or takes longer than a tick can wait: a byte at a time, for ever.
        if not self._refreshing.is_alive():
            self._refreshing = Thread(target=self._refresh, daemon=True)
            self._refreshing.start()
        self._refreshing.join(REFRESH_SECONDS)
        self._paused = paused_entries.paused(get_redis(self.app))
        return float(super().tick(*arguments, **options))

    def _refresh(self) -> None:
        with suppress(SQLAlchemyError, RedisError):
            paused_entries.refresh(engine(), get_redis(self.app))

    def close(self) -> None:
        """Free the lock. While Redis is away it ends by itself: a signal must end beat then, too."""
        try:
            super().close()
        except RedisError:
            self.lock = None

    def maybe_due(self, entry: Any, **options: Any) -> float:
        """Send an entry that is due, unless an operator has paused it: then it stays due."""
        return float(self.max_interval if entry.name in self._paused else super().maybe_due(entry, **options))
