"""One batch: the transaction that writes its rows, ends in time, and waits for no row that someone else holds.

Locked rows are rare and looking for them costs 10 %. So on MariaDB, which can be told not to wait for a lock, a batch looks for
them only after it has met one: `transact` then rolls it back and runs it again. MySQL always looks first.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import Connection

from db.batches.place import Place
from db.batches.target import Target, Value
from db.locks import Lock

# A batch is written in statements of so many rows, some 15 ms each. A batch whose time is up ends between two of them, however
# many rows it was meant to take.
STATEMENT_ROWS = 1000

# Called in the transaction of a batch with the place behind it and its number of rows.
Record = Callable[[Connection, Place, int], None]


class Keeper(Protocol):
    """Stores rows elsewhere before they are deleted."""

    def keep(self, keys: Sequence[Value]) -> None:
        """Store the rows for good; no transaction is open meanwhile."""

    def unchanged(self, connection: Connection, keys: Sequence[Value]) -> list[Value]:
        """Lock the rows that nobody else holds; return the keys of rows that are still as they were stored. Called in the
        transaction of the delete.
        """


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a batch: of `tried` keys within `span` steps others had locked `skipped`; it ended at `place`."""

    rows: int
    skipped: int
    tried: int
    span: int
    place: Place


@dataclass(slots=True)
class Batch:
    """One transaction of the walk; it may be retried. `keys` are the primary keys to process; None means every row between
    the places `before` and `behind`.
    """

    target: Target
    keys: Sequence[Value] | None
    before: Place
    behind: Place
    seconds: float
    lock: Lock
    record: Record | None
    keeper: Keeper | None
    retried: bool = False

    def write(self, connection: Connection) -> Written:
        """Write statement by statement until all is done or the time is up; there is always time for the first."""
        self.lock.check(connection)
        target, cutoff, ends_at = self.target, self.behind.cutoff, time.monotonic() + self.seconds
        place, rows, tried, span = self.before, 0, 0, 0
        eager = not self.retried and getattr(connection.dialect, "is_mariadb", False)
        self.retried = True
        look_back = not eager and (self.keys is None or not target.key.unique)
        for keys, until in self._statements():
            if tried and time.monotonic() > ends_at:
                break
            if keys is None:
                wrote = target.write_range(connection, place.after, until, cutoff, eager=eager)
                tried = span = target.key.steps(self.before.after, until)
            else:
                kept = self.keeper.unchanged(connection, keys) if self.keeper else keys
                wrote = target.write_keys(connection, kept, cutoff, eager=eager)
                look_back = look_back or wrote < len(keys)
                tried, span = tried + len(keys), target.key.steps(self.before.after, keys[-1])
            rows += wrote
            place = replace(place, after=until)
        skipped = target.still_there(connection, self.before.after, place.after, cutoff) if look_back else 0
        if self.record:
            self.record(connection, place, rows)
        return Written(rows, skipped, tried, span, place)

    def _statements(self) -> Iterator[tuple[Sequence[Value] | None, Value | None]]:
        """Yield the keys of each statement, or None for all in its range, and the key where it ends."""
        if self.keys is None:
            place = replace(self.before, until=self.behind.after)
            while not place.finished:
                place = place.ahead(self.target, STATEMENT_ROWS)
                yield None, place.after
            return
        for first in range(0, len(self.keys), STATEMENT_ROWS):
            keys = self.keys[first : first + STATEMENT_ROWS]
            yield keys, keys[-1] if first + STATEMENT_ROWS < len(self.keys) else self.behind.after
