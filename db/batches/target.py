"""The target of a walk: a table, its key, the predicate, and the statements made of them, each with its index."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import Connection, TextClause, text

Value: TypeAlias = int | datetime


@dataclass(frozen=True, slots=True)
class Key:
    """The first column of a table's primary key, walked in windows of `window` steps, so that no search is longer.

    `unique` is False if it is not the whole key: then a value may have several rows, which go together.
    """

    column: str
    step: int | timedelta
    window: int
    unique: bool = True

    def before(self, value: Value) -> Value:
        """Return the place just before `value`: a walk starts behind a place."""
        return value - self.step  # type: ignore[operator]

    def after(self, value: Value, steps: int) -> Value:
        return value + self.step * steps  # type: ignore[operator]

    def steps(self, after: Value | None, until: Value | None) -> int:
        """Return how many keys there can be between two places."""
        return int((until - after) / self.step)  # type: ignore[operator,arg-type]

    def dump(self, value: Value | None) -> str | None:
        """Return a place as it is stored."""
        return None if value is None else str(value)

    def load(self, stored: str | None) -> Value | None:
        if stored is None:
            return None
        return int(stored) if isinstance(self.step, int) else datetime.fromisoformat(stored)


ID = Key("id", 1, 20_000)
MINUTE = Key("minute", timedelta(minutes=1), 240, unique=False)


@dataclass(frozen=True, slots=True)
class Target:
    """Rows of `table` for which `predicate`, SQL over `:cutoff`, holds. They are deleted, or changed by `change`, SQL too.

    A change must make the predicate false, or every walk would find its rows again.
    """

    table: str
    predicate: str
    key: Key = ID
    change: str | None = None

    @property
    def bounds(self) -> TextClause:
        """The first and the last key: two dives into the primary key."""
        return text(f"SELECT MIN({self.key.column}), MAX({self.key.column}) FROM {self.table}")  # noqa: S608 - ours

    @property
    def next_key(self) -> TextClause:
        """The first key behind a gap: one dive into the primary key."""
        key = self.key.column
        return text(f"SELECT MIN({key}) FROM {self.table} WHERE {key} > :after AND {key} <= :until")  # noqa: S608 - ours

    @property
    def find(self) -> TextClause:
        """Keys of matching rows in one window: a range of the primary key, read without locks."""
        key = self.key.column
        return text(
            f"SELECT DISTINCT {key} FROM {self._by_key}"  # noqa: S608 - ours
            f" WHERE {key} > :after AND {key} <= :until AND ({self.predicate})"
            f" ORDER BY {key} LIMIT :rows"
        )

    @property
    def explain(self) -> TextClause:
        """The server's plan of `find`, a row a step; MySQL would else draw a tree."""
        return text(f"EXPLAIN FORMAT=TRADITIONAL {self.find.text}")

    def count(self, age: str) -> TextClause:
        """How many rows of one window match, and the oldest and newest `age` among them; by the same range, without locks."""
        key = self.key.column
        return text(
            f"SELECT COUNT(*), MIN({age}), MAX({age}) FROM {self._by_key}"  # noqa: S608 - ours
            f" WHERE {key} > :after AND {key} <= :until AND ({self.predicate})"
        )

    def write_keys(self, connection: Connection, keys: Sequence[Value], cutoff: object, *, eager: bool = False) -> int:
        """Delete or change the rows of `keys` that still match and that no one else holds; return how many."""
        return self._write(connection, _listed(self.key, keys), {"cutoff": cutoff}, eager) if keys else 0

    def write_range(
        self, connection: Connection, after: Value | None, until: Value | None, cutoff: object, *, eager: bool = False
    ) -> int:
        """Delete or change the matching rows between two places that no one else holds; return how many.

        At READ COMMITTED a row that does not match is unlocked as soon as it is seen, and gaps are not locked at all.
        """
        where = f"{self.key.column} > %(after)s AND {self.key.column} <= %(until)s"
        return self._write(connection, where, {"after": after, "until": until, "cutoff": cutoff}, eager)

    def still_there(self, connection: Connection, after: Value | None, until: Value | None, cutoff: object) -> int:
        """Return how many matching rows lie between two places, read without locks: the rows that others had locked."""
        return connection.execute(self.count("1"), {"after": after, "until": until, "cutoff": cutoff}).one()[0]  # type: ignore[no-any-return]

    def _write(self, connection: Connection, where: str, parameters: dict[str, object], eager: bool) -> int:
        """Lock the matching rows that no one else holds, then write only those: a batch waits for no row while it holds others.

        `eager`, on MariaDB: write at once, and fail with a lock wait timeout, at once too, if someone holds a row.
        """
        # The index is forced, for on a small table the optimizer prefers to read, and lock, all of it; the predicate is
        # re-stated, for rows may have changed since they were found.
        matches = f"AND ({self.predicate.replace(':cutoff', '%(cutoff)s')})"
        statement = f"DELETE {self.table} FROM {self._by_key}"
        if self.change is not None:
            statement = f"UPDATE {self._by_key} SET {self.change}"  # noqa: S608 - names of this project
        if eager:
            statement = f"SET STATEMENT innodb_lock_wait_timeout = 0 FOR {statement} WHERE {where} {matches}"
            return connection.exec_driver_sql(statement, parameters).rowcount
        search = f"SELECT {self.key.column} FROM {self._by_key} WHERE {where} {matches}"  # noqa: S608 - ours
        locked = Counter(connection.exec_driver_sql(f"{search} FOR UPDATE SKIP LOCKED", parameters).scalars())
        if self.key.unique:
            lists = [list(locked)] if locked else []
        else:
            # One at a time, for of so short a list of rows the optimizer makes a range; of a long one it would read it all.
            there = Counter(connection.exec_driver_sql(search, parameters).scalars())
            lists = [[key] for key, rows in locked.items() if rows == there[key]]
        return sum(
            connection.exec_driver_sql(f"{statement} WHERE {_listed(self.key, keys)} {matches}", parameters).rowcount
            for keys in lists
        )

    @property
    def _by_key(self) -> str:
        return f"{self.table} FORCE INDEX (PRIMARY)"


def _listed(key: Key, values: Iterable[Value]) -> str:
    """Return SQL for "one of these". The keys came from the database as numbers or times; written out they cost the driver a
    tenth of what bound ones do.
    """
    listed = ", ".join(f"'{value}'" if isinstance(value, datetime) else str(int(value)) for value in values)
    return f"{key.column} IN ({listed})"
