"""Beat's scheduler: RedBeat, which writes its entries only once it holds the lock, and sends none that is paused."""

from collections.abc import Collection
from contextlib import suppress
from functools import cache
from typing import Any

import structlog
from redbeat import RedBeatScheduler
from redbeat.schedulers import get_redis
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.engine import create_engine
from settings import get_settings
from workers import paused_entries

log = structlog.get_logger("workers.beat")

# A tick waits no longer for a MySQL that is silent: beat would lose its lock.
ANSWER_SECONDS = 1.0


@cache
def _engine() -> Engine:
    return create_engine(get_settings().database_url, read_seconds=ANSWER_SECONDS)


class Scheduler(RedBeatScheduler):  # type: ignore[misc]
    """RedBeat's own would write them at its start: a standby's file, or an older host's, would replace the holder's."""

    _written = False
    _paused: Collection[str] = ()

    def setup_schedule(self) -> None:
        """Write nothing yet."""

    def tick(self, *arguments: Any, **options: Any) -> float:
        """Send what is due. The first time, write the entries before: beat has its lock by then."""
        if not self._written:
            self.lock.extend(int(self.lock_timeout))  # raises LockError if this process was paused and lost it
            if not get_redis(self.app).exists(self.app.redbeat_conf.statics_key):
                log.warning(
                    "Redis knows of no earlier beat: the first start, or Redis has lost its data; what fell due before now is"
                    " not sent, each entry begins with its next time (chat-workers schedule run sends one at once)"
                )
            super().setup_schedule()
            self._written = True
        with suppress(SQLAlchemyError):  # what beat knew of them holds while MySQL is away
            paused_entries.refresh(_engine(), get_redis(self.app))
        self._paused = paused_entries.paused(get_redis(self.app))
        return float(super().tick(*arguments, **options))

    def maybe_due(self, entry: Any, **options: Any) -> float:
        """Send an entry that is due, unless an operator has paused it: then it stays due."""
        return float(self.max_interval if entry.name in self._paused else super().maybe_due(entry, **options))
