"""Hold back InnoDB's purge while a walk deletes, so that the server has one busy thread instead of two.

A deleted row is only marked; purge threads remove it from every index later, at about the cost of the delete itself. Beside a
walk they compete with it for pages and with everyone for the CPUs. While they are held back the walk is a third faster, and the
API's p99 stays near its baseline instead of twice that (docs/decisions/retention.md). An open read view holds them back, as a
dump does, or one plain DELETE. It costs undo: about 100 bytes for each deleted row, and everyone else's too. So a walk opens
one view only, at its beginning, for a bounded time and number of rows; then the purge goes on, beside the walk if need be.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

# Fewer rows are not worth a read view; more would be too much undo.
FROM_ROWS = 20_000
MOST_ROWS = 1_000_000


@dataclass(slots=True)
class PurgePause:
    """The one pause of a walk, `seconds` long at most; 0: no pause."""

    engine: Engine
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _view: Connection | None = None
    _ends_at: float | None = None

    def update(self, rows: int) -> None:
        """Begin the pause, or end it, when it is time to; the walk has deleted `rows` rows by now."""
        if self._ends_at is None:
            if self.seconds and rows >= FROM_ROWS:
                self._ends_at = self.clock() + self.seconds
                self._view = self.engine.connect().execution_options(isolation_level="REPEATABLE READ")
                self._view.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        elif rows >= MOST_ROWS or self.clock() >= self._ends_at:
            self.close()

    def close(self) -> None:
        """Let the purge go on. The view ends with its session, also if the server has killed that meanwhile."""
        if self._view is not None:
            self._view.invalidate()
            self._view.close()
            self._view = None
