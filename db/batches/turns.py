"""Deleting and InnoDB's purge take turns: one busy thread of the server at a time instead of two or more.

A deleted row is only marked; purge threads remove it from every index later, at about the cost of the delete itself. Beside a
walk they compete with it for pages and with everyone for the CPUs. An open read view keeps them waiting, as a dump does. So a
walk holds one while it deletes, for a bounded time, and then waits until the purge has caught up.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

# MariaDB tells it to everyone. MySQL has it in INNODB_METRICS, for accounts with PROCESS.
HISTORY = text("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'")
# What live traffic leaves behind in a moment; purge is never at zero beside it. Where it was more before, that much will do.
FEW_TRANSACTIONS = 500


@dataclass(slots=True)
class Turns:
    """Turns of up to `seconds` each, first the walk's; 0: the two run beside each other."""

    engine: Engine
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _view: Connection | None = None
    _began: float = 0.0
    _purging: bool = False
    _usual: int = 0

    def reason(self, session: Connection) -> str | None:
        """Return why to hold back now, None while it is the walk's turn."""
        if not self.seconds:
            return None
        over = self.clock() - self._began >= self.seconds
        if self._purging:
            left = None if over else self._history(session)
            if not over and (left is None or left > self._usual):
                return "the server clears away what was deleted"
            self._purging = False
        if self._view is None:
            self._usual = self._usual or max(FEW_TRANSACTIONS, self._history(session) or 0)  # as it was before the first turn
            self._open()
        elif over:
            self.give_way()
            self._purging, self._began = True, self.clock()
            return "the server clears away what was deleted"
        return None

    def give_way(self) -> None:
        """Let the purge go on: the view ends with its session, also with one that the server has killed meanwhile."""
        if self._view is not None:
            self._view.invalidate()
            self._view.close()
            self._view = None

    close = give_way

    def _open(self) -> None:
        self._view = self.engine.connect().execution_options(isolation_level="REPEATABLE READ")
        self._view.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        self._began = self.clock()

    def _history(self, session: Connection) -> int | None:
        """Return how many transactions the purge has before it; None where the server does not tell: then its turn is full."""
        row = session.execute(HISTORY).one_or_none()
        return None if row is None else int(row[1])
