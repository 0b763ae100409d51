"""What a walk works on: a table, its key, the predicate, and the statements made of them, each with its index."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import Connection, TextClause, text

Value: TypeAlias = int | datetime


@dataclass(frozen=True, slots=True)
class Key:
    """The first column of a table's primary key, walked in windows of `window` steps, so that no search is longer."""

    column: str
    step: int | timedelta
    window: int

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
MINUTE = Key("minute", timedelta(minutes=1), 240)


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
            f"SELECT DISTINCT {key} FROM {self._by_key} WHERE {key} > :after AND {key} <= :until AND ({self.predicate})"  # noqa: S608
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

    def write_keys(self, connection: Connection, keys: Sequence[Value], cutoff: object) -> int:
        """Delete or change the rows of `keys` that still match; return how many. Locks these rows alone.

        The keys came from the database as numbers or times; written out they cost the driver a tenth of what bound ones do.
        """
        listed = ", ".join(f"'{key}'" if isinstance(key, datetime) else str(int(key)) for key in keys)
        return self._write(connection, f"{self.key.column} IN ({listed})", {"cutoff": cutoff})

    def write_range(self, connection: Connection, after: Value | None, until: Value | None, cutoff: object) -> int:
        """Delete or change the matching rows between two places; return how many.

        At READ COMMITTED a row that does not match is unlocked as soon as it is seen, and gaps are not locked at all. Where
        most rows match this is about a third faster than a list of keys.
        """
        where = f"{self.key.column} > %(after)s AND {self.key.column} <= %(until)s"
        return self._write(connection, where, {"after": after, "until": until, "cutoff": cutoff})

    def _write(self, connection: Connection, where: str, parameters: dict[str, object]) -> int:
        # The index is forced, for on a small table the optimizer prefers to read, and lock, all of it; the predicate is
        # re-stated, for rows may have changed since they were found.
        where = f"WHERE {where} AND ({self.predicate.replace(':cutoff', '%(cutoff)s')})"
        if self.change is None:
            statement = f"DELETE {self.table} FROM {self._by_key} {where}"
        else:
            statement = f"UPDATE {self._by_key} SET {self.change} {where}"  # noqa: S608 - names of this project
        return connection.exec_driver_sql(statement, parameters).rowcount

    @property
    def _by_key(self) -> str:
        return f"{self.table} FORCE INDEX (PRIMARY)"
