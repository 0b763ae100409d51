"""What a walk works on: a table, its key, the predicate, and the statements made of them, each with its index."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import BindParameter, DateTime, Integer, TextClause, bindparam, text
from sqlalchemy.types import TypeEngine

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

    def count(self, age: str) -> TextClause:
        """How many rows of one window match, and the oldest and newest `age` among them; by the same range, without locks."""
        key = self.key.column
        return text(
            f"SELECT COUNT(*), MIN({age}), MAX({age}) FROM {self._by_key}"  # noqa: S608 - ours
            f" WHERE {key} > :after AND {key} <= :until AND ({self.predicate})"
        )

    @property
    def write(self) -> TextClause:
        """Delete or change the rows of `:keys`, by primary key, re-stating the predicate: what no longer matches stays.

        The index is forced, for on a small table the optimizer prefers to read, and lock, all of it.
        """
        where = f"WHERE {self.key.column} IN :keys AND ({self.predicate})"
        # The keys came from the database as numbers or times; written out they cost a tenth of what bound ones do.
        kind: TypeEngine[Any] = Integer() if isinstance(self.key.step, int) else DateTime()
        keys: BindParameter[Any] = bindparam("keys", type_=kind, expanding=True, literal_execute=True)
        if self.change is None:
            return text(f"DELETE {self.table} FROM {self._by_key} {where}").bindparams(keys)
        return text(f"UPDATE {self._by_key} SET {self.change} {where}").bindparams(keys)  # noqa: S608 - ours

    @property
    def _by_key(self) -> str:
        return f"{self.table} FORCE INDEX (PRIMARY)"
