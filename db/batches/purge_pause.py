"""InnoDB's purge waits its turn: one busy thread of the server while a walk deletes, instead of two or more.

A deleted row is only marked; purge threads remove it from every index later, at about the cost of the delete itself. Beside a
walk they compete with it for pages and with everyone for the CPUs. An open read view keeps them waiting, as a dump does, or one
plain DELETE. So a walk may hold one at its beginning, for so many seconds and rows at most: the undo of those rows, about 100
bytes each, is kept for as long, and so is everyone else's. Then the purge goes on, beside the walk if that is still at work.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

# What so few rows leave to the purge is not worth a read view; what more than so many leave would be too much undo.
FROM_ROWS = 20_000
MOST_ROWS = 1_000_000


@dataclass(slots=True)
class PurgePause:
    """The walk's turn, once a walk, of up to `seconds`; 0: the two run beside each other."""

    engine: Engine
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _view: Connection | None = None
    _ends_at: float | None = None

    def go_on(self, rows: int) -> None:
        """Begin the turn, or end it if it is over, after so many rows."""
        if self._ends_at is None:
            if self.seconds and rows >= FROM_ROWS:
                self._ends_at = self.clock() + self.seconds
                self._view = self.engine.connect().execution_options(isolation_level="REPEATABLE READ")
                self._view.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        elif rows >= MOST_ROWS or self.clock() >= self._ends_at:
            self.close()

    def close(self) -> None:
        """Let the purge go on: the view ends with its session, also with one that the server has killed meanwhile."""
        if self._view is not None:
            self._view.invalidate()
            self._view.close()
            self._view = None
