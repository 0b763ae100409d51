"""One batch: the transaction that writes its rows, ends in time, and waits for no row that someone else holds.

Locked rows are rare and looking for them costs 10 %. So on MariaDB, which can be told not to wait for a lock, a batch is
written at once, and only one that has met a locked row is rolled back and run again with a look. MySQL always looks.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.batches.place import Place
from db.batches.target import Target, Value
from db.locks import Lock
from db.transactions import is_of_rows

# A batch is written in statements of so many rows, some 15 ms each. A batch whose time is up ends between two of them, however
# many rows it was meant to take.
STATEMENT_ROWS = 1000

# Called in the transaction of a batch with its number of rows.
Record = Callable[[Connection, int], None]


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
    """The result of a batch: of `tried` keys others had locked, or the schema refused, `skipped`; it ended at `place`."""

    rows: int
    skipped: int
    tried: int
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
    refused: bool = False

    def write(self, connection: Connection) -> Written:
        """Write statement by statement until all is done or the time is up; there is always time for the first."""
        self.lock.check(connection)
        target, place, ends_at = self.target, self.before, time.monotonic() + self.seconds
        rows = tried = 0
        at_once = not self.retried and getattr(connection.dialect, "is_mariadb", False)
        self.retried = True
        for keys, until in self._statements():
            if tried and time.monotonic() > ends_at:
                break
            tried += target.key.steps(place.after, until) if keys is None else len(keys)
            if keys and self.keeper:
                keys = self.keeper.unchanged(connection, keys)
            where = target.between(place.after, until) if keys is None else target.among(keys)
            rows += self._write(connection, where, at_once)
            place = replace(place, after=until)
        looked = not at_once or self.keeper is not None or self.refused
        skipped = target.still_there(connection, self.before.after, place.after, place.cutoff) if looked and rows < tried else 0
        if self.record:
            self.record(connection, rows)
        return Written(rows, skipped, tried, place)

    def _write(self, connection: Connection, where: str, at_once: bool) -> int:
        """Write rows in one statement, or in ever smaller ones where the schema refuses some: those stay, the rest goes."""
        try:
            return self.target.write(connection, where, self.before.cutoff, at_once=at_once)
        except DBAPIError as error:
            if not is_of_rows(error):
                raise
        self.refused = True
        keys = self.target.matching(connection, where, self.before.cutoff)
        half = len(keys) // 2
        parts = (keys[:half], keys[half:]) if half else ()
        return sum(self._write(connection, self.target.among(part), at_once) for part in parts)

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
