"""The target of a walk: a table, its key, the predicate, and the statements made of them, each with its index."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

import orjson
from sqlalchemy import Connection, TextClause, text

Value: TypeAlias = int | datetime


@dataclass(frozen=True, slots=True)
class Key:
    """The first column of an index, walked in windows of `window` steps, so that no search is longer.

    `unique` is False if it is not the whole primary key: then a value may have several rows, which go together unless `row`
    names the one column that tells them apart.
    """

    column: str
    step: int | timedelta
    window: int
    unique: bool = True
    index: str = "PRIMARY"
    row: str = ""

    def before(self, value: Value) -> Value:
        """Return the place just before `value`: a walk starts behind a place."""
        return value - self.step  # type: ignore[operator]

    def after(self, value: Value, steps: int) -> Value:
        return value + self.step * steps  # type: ignore[operator]

    def steps(self, after: Value | None, until: Value | None) -> int:
        """Return how many keys there can be between two places."""
        return int((until - after) / self.step)  # type: ignore[operator,arg-type]


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

    def among(self, keys: Iterable[Value]) -> str:
        """Return SQL for "one of these keys". Keys are numbers or times; written out they cost the driver a tenth of what bound
        ones do.
        """
        return f"{self.key.column} IN ({', '.join(map(_literal, keys)) or 'NULL'})"

    def between(self, after: Value | None, until: Value | None) -> str:
        """Return SQL for "behind one place and up to another"."""
        return f"{self.key.column} > {_literal(after)} AND {self.key.column} <= {_literal(until)}"

    def still_there(self, connection: Connection, after: Value | None, until: Value | None, cutoff: object) -> int:
        """Return how many matching rows lie between two places, read without locks: the rows that others had locked."""
        return connection.execute(self.count("1"), {"after": after, "until": until, "cutoff": cutoff}).one()[0]  # type: ignore[no-any-return]

    def write(self, connection: Connection, where: str, cutoff: object, *, at_once: bool = False) -> int:
        """Delete or change the rows of `where` that still match and that no one else holds; return how many.

        Rows are locked first and then written alone, so that a batch waits for no row while it holds others. `at_once`, on
        MariaDB: write straight away, and fail with a lock wait timeout if someone holds one. At READ COMMITTED a row that does
        not match is unlocked as soon as it is seen, and gaps are not locked at all.
        """
        # The index is forced, for on a small table the optimizer prefers to read, and lock, all of it; the predicate is
        # re-stated, for rows may have changed since they were found.
        where, values = f"{where} {self._matches}", {"cutoff": cutoff}
        row = self.key.row or (self.key.column if self.key.unique else "")  # where there is none, others write a row by hand
        if row and not at_once:
            search = f"SELECT {row} FROM {self._by_key} WHERE {where} FOR UPDATE SKIP LOCKED"  # noqa: S608 - names of ours
            free = [*connection.exec_driver_sql(search, values).scalars()]
            return self._write_locked(connection, row, free) if free else 0
        statement = f"DELETE {self.table} FROM {self._by_key} WHERE {where}"
        if self.change is not None:
            statement = f"UPDATE {self._by_key} SET {self.change} WHERE {where}"  # noqa: S608 - as above
        if at_once:
            statement = f"SET STATEMENT innodb_lock_wait_timeout = 0 FOR {statement}"
        return connection.exec_driver_sql(statement, values).rowcount

    def _write_locked(self, connection: Connection, row: str, free: list[Value | str]) -> int:
        """Write rows that are locked, and so cannot have changed.

        With the predicate, a DELETE would wait for the locks of what its subqueries read; with a list of keys alone, MariaDB
        reads, and waits for, all of a small table, whatever is forced.
        """
        kind = "BIGINT" if isinstance(free[0], int) else "VARCHAR(64) CHARACTER SET ascii"
        source = f"JSON_TABLE(%(free)s, '$[*]' COLUMNS (free {kind} PATH '$')) AS found"
        tables = f"{source} STRAIGHT_JOIN {self.table} FORCE INDEX (PRIMARY) ON {self.table}.{row} = found.free"
        delete = f"DELETE {self.table} FROM {tables}"
        statement = delete if self.change is None else f"UPDATE {tables} SET {self.change}"  # noqa: S608 - as above
        return connection.exec_driver_sql(statement, {"free": orjson.dumps(free).decode()}).rowcount

    def matching(self, connection: Connection, where: str, cutoff: object) -> Sequence[Value]:
        """Return the keys of the rows of `where` that match."""
        search = f"SELECT DISTINCT {self.key.column} FROM {self._by_key} WHERE {where} {self._matches}"  # noqa: S608 - ours
        return connection.exec_driver_sql(search, {"cutoff": cutoff}).scalars().all()

    @property
    def _matches(self) -> str:
        return f"AND ({self.predicate.replace(':cutoff', '%(cutoff)s')})"

    @property
    def _by_key(self) -> str:
        return f"{self.table} FORCE INDEX ({self.key.index})"


def _literal(value: Value | None) -> str:
    return f"'{value}'" if isinstance(value, datetime) else str(int(value))  # type: ignore[arg-type]
