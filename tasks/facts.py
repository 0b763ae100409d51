"""Facts of operations: a row each, from which /metrics, /status, the status commands and Prometheus's alert rules are made.

The rows of a job are in its facts.py, those of queues, workers and beat in workers/operations.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Connection, TextClause

from db.rows import dicts
from settings import get_settings
from tasks.words import count, duration, moment, size

PREFIX = "chat_workers_"
"""Before each name, in Prometheus."""

Row = dict[str, Any]
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold on one fact: above or below it for so many minutes, something is wrong. docs/runbook.md says what to do."""

    name: str
    severity: Literal["critical", "warning"]
    says: str
    """A sentence with {value} and the fact's labels. Without {value} it speaks of all rows at once: {queue} may be several."""
    detail: str = ""
    """What the row's other columns add to it; Prometheus does not know them."""
    above: float | None = None
    below: float | None = None
    minutes: int = 1
    where: Mapping[str, Labels] = field(default_factory=dict)
    """Only rows whose label has one of these values."""
    given: str = ""
    """A fact without labels that must be 1 meanwhile; the rows have it too."""
    window: int = 0
    """Of a counter the increase within so many minutes, of a histogram its 95th percentile."""

    def fires(self, name: str, row: Row) -> bool:
        """Return whether the row's value is beyond the threshold. A row without a value never is."""
        number = row.get(name)
        if number is None or (self.given and not row[self.given]):
            return False
        if any(row[label] not in values for label, values in self.where.items()):
            return False
        return number > self.above if self.above is not None else bool(number < (self.below or 0))


@dataclass(frozen=True, slots=True)
class Fact:
    """A gauge, and a column of its table. Without a title people are not shown it."""

    name: str
    help: str
    title: str = ""
    alert: Alert | None = None
    most: int | None = None
    """Counting stops there: so many, or more."""
    labels: Labels | None = None
    """None: those of its table."""
    show: Callable[[Row], object] | None = None
    """For people, instead of the value in the unit that its name ends with."""
    is_counter: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """What a table says to people only."""

    title: str
    show: Callable[[Row], object]


@dataclass(frozen=True, slots=True)
class Table:
    """Facts that are read together: a row for each set of label values, a column for each fact.

    `read` is a statement whose columns are named like labels and facts, or a function of the source (a connection to the
    database, a client of Redis) that returns such rows and raises what the source raises.
    """

    name: str
    title: str
    labels: Labels
    read: TextClause | Callable[[Any], Iterable[Row]]
    columns: tuple[Fact | Column, ...]
    empty: str = "none"
    """What people are told if there are no rows."""
    needs: str = ""
    """The setting without which its job is not set up; then people are told that."""
    lists: Callable[[Row], object] = bool
    """Which rows people are shown."""
    on_demand: bool = False
    """Too dear, or too long, for each scrape: only the job's own status command reads it."""

    @property
    def facts(self) -> list[Fact]:
        """Its facts, each with its labels."""
        facts = [column for column in self.columns if isinstance(column, Fact)]
        return [fact if fact.labels is not None else replace(fact, labels=self.labels) for fact in facts]

    def rows(self, source: Any) -> list[Row]:
        """Return the rows now."""
        return rows(source, self.read) if isinstance(self.read, TextClause) else list(self.read(source))

    def header(self) -> Labels:
        """Return what people read above the cells."""
        return (*(label.replace("_", " ") for label in self.labels), *(c.title for c in self.columns if c.title))

    def without_rows(self) -> str:
        """Return what people are told in the place of rows."""
        unset = self.needs and getattr(get_settings(), self.needs) is None
        return f"not set up: {self.needs.upper()} is not set" if unset else self.empty

    def cells(self, found: list[Row]) -> list[tuple[str, ...]]:
        """Return the rows as people read them."""
        shown = [column for column in self.columns if column.title]
        listed = [row for row in found if self.lists(row)]
        return [(*(str(row[label]) for label in self.labels), *(_cell(column, row) for column in shown)) for row in listed]


def _cell(column: Fact | Column, row: Row) -> str:
    if isinstance(column, Column) or column.show:
        return str(column.show(row))  # type: ignore[misc]
    return in_words(column.name, row.get(column.name), column.most)


@dataclass(frozen=True, slots=True)
class Counter:
    """Events that processes count (tasks/counters.py); in Prometheus its name ends with _total."""

    name: str
    help: str
    labels: Labels = ()
    alert: Alert | None = None
    known: tuple[Labels, ...] = ()
    """Label values that are shown before their first event: a series that begins at 1 has increased by nothing."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations in seconds that processes count; `buckets` are upper bounds."""

    name: str
    help: str
    labels: Labels
    buckets: tuple[float, ...]
    alert: Alert | None = None
    bounds: Labels = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", (*map(repr, self.buckets), "+Inf"))


AnyFact = Fact | Counter | Histogram


def rows(connection: Connection, statement: TextClause, **values: Any) -> list[Row]:
    """Return a statement's rows, with plain numbers."""
    return [
        {name: float(value) if isinstance(value, Decimal) else value for name, value in row.items()}
        for row in dicts(connection, statement, **values)
    ]


def read_tables(tables: Iterable[Table], source: Any, *, on_demand: bool = False) -> dict[str, list[Row]]:
    """Return the rows of each table by its name, also of those that are read on demand only if that is asked for."""
    return {table.name: table.rows(source) for table in tables if on_demand or not table.on_demand}


def in_words(name: str, value: Any, most: int | None = None) -> str:
    """Return a value as people read it, in the unit that its name ends with."""
    if value is None or not isinstance(value, int | float):
        return str(value or "-")
    if name.endswith("_timestamp_seconds"):
        return moment(datetime.fromtimestamp(value, UTC) if value else None)
    if name.endswith("_seconds"):
        return duration(value)
    if name.endswith("_ratio"):
        return f"{value:.0%}"
    return size(value) if name.endswith("_bytes") else count(value, most or float("inf"))
