"""The whole picture: every section, read now from MySQL and Redis, with what is wrong at its top."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from db.engine import create_engine
from settings import get_settings
from workers.operations import attachments, backups, beat, counters, fleet, messages, notifications, queues, retention
from workers.operations.redis import client
from workers.operations.report import Section, Table, Trouble
from workers.operations.source import Reading, Source, together

log = structlog.get_logger(__name__)

# One line here brings a part into the metrics, the page and the command.
FROM_DATABASE: tuple[Section, ...] = (notifications.SECTION, attachments.SECTION, backups.SECTION, retention.SECTION)
FROM_REDIS: tuple[Section, ...] = (
    queues.SECTION,
    messages.SECTION,
    fleet.SECTION,
    beat.SECTION,
    counters.SECTION,
)
SECTIONS = {section.name: section for section in (*FROM_DATABASE, *FROM_REDIS)}
# In the order in which a person asks.
SHOWN = ("notifications", "queues", "messages", "workers", "beat", "attachments", "backups", "retention")

# The server itself ends a statement that takes longer; the socket's timeout is for a server that has gone silent.
STATEMENT_SECONDS = 1
READ_SECONDS = 2

_SEVERITIES = ("critical", "warning")


@dataclass(frozen=True, slots=True)
class Picture:
    """All readings of one moment."""

    at: datetime
    readings: tuple[Reading, ...]

    def troubles(self) -> list[Trouble]:
        """Return what is wrong now, the worst first."""
        found = [*_away("database", self._of(FROM_DATABASE)), *_away("broker", self._of(FROM_REDIS))]
        for reading in self.readings:
            if reading.ok:
                found += SECTIONS[reading.name].troubles(reading.value)
        return sorted(found, key=lambda trouble: _SEVERITIES.index(trouble.severity))

    def tables(self) -> list[Table]:
        """Return the tables in the order in which a person asks; those that could not be read are left out."""
        values = {reading.name: reading.value for reading in self.readings if reading.ok}
        return [table for name in SHOWN if name in values for table in SECTIONS[name].tables(values[name])]

    def as_json(self) -> dict[str, Any]:
        """Return it for --json."""
        return {
            "at": self.at,
            "troubles": [asdict(trouble) for trouble in self.troubles()],
            "sections": {
                r.name: asdict(r.value) if r.ok else {"fault": r.fault}
                for r in self.readings
                if r.name != counters.SECTION.name
            },
        }

    def _of(self, sections: tuple[Section, ...]) -> list[Reading]:
        names = {section.name for section in sections}
        return [reading for reading in self.readings if reading.name in names]


def _away(source: str, readings: list[Reading]) -> Iterator[Trouble]:
    faults = {reading.name: reading.fault for reading in readings if reading.fault}
    if not faults:
        return
    what = f"the {source}" if len(faults) == len(readings) else ", ".join(faults)
    why = "; ".join(dict.fromkeys(faults.values()))
    yield Trouble("ChatWorkersCollectorDown", "critical", f"What lies in {what} cannot be read: {why}.")


def look() -> Picture:
    """Return the picture of now, or of a moment ago. It takes DEADLINE_SECONDS at most, whatever is away."""
    return Picture(datetime.now(UTC), together(_sources()))


@cache
def _sources() -> tuple[Source, Source]:
    return (
        Source(tuple(section.name for section in FROM_DATABASE), _read_database),
        Source(tuple(section.name for section in FROM_REDIS), _read_redis),
    )


def ready() -> tuple[Reading, ...]:
    """Return whether the gateway reaches the database and the broker, within DEADLINE_SECONDS."""
    return together(_pings())


@cache
def _pings() -> tuple[Source, Source]:
    return (
        Source(("database",), lambda: iter([_reading("database", _ping_database)])),
        Source(("broker",), lambda: iter([_reading("broker", lambda: client().ping())])),
    )


def _ping_database() -> None:
    with _engine().connect() as connection:
        connection.execute(text("SELECT 1"))


def _read_database() -> Iterator[Reading]:
    try:
        connection = _engine().connect()
    except SQLAlchemyError as error:
        yield from (Reading(section.name, fault=_words(error)) for section in FROM_DATABASE)
        return
    with closing(connection):
        for section in FROM_DATABASE:
            yield _reading(section.name, lambda section=section: section.read(connection))  # type: ignore[misc]
            if not connection.closed and not connection.invalidated:
                connection.rollback()


def _read_redis() -> Iterator[Reading]:
    first = _reading("", lambda: client().ping())
    if not first.ok:
        yield from (Reading(section.name, fault=first.fault, seconds=first.seconds) for section in FROM_REDIS)
        return
    for section in FROM_REDIS:
        yield _reading(section.name, lambda section=section: section.read(client()))  # type: ignore[misc]


def _reading(name: str, read: Callable[[], Any]) -> Reading:
    began = time.monotonic()
    try:
        value = read()
    except (SQLAlchemyError, RedisError) as error:
        return Reading(name, fault=_words(error), seconds=time.monotonic() - began)
    except Exception as error:  # whatever one part trips over, the others are still asked for
        log.exception("a part of the picture could not be read", part=name)
        return Reading(name, fault=f"{type(error).__name__}: {_words(error)}", seconds=time.monotonic() - began)
    return Reading(name, value, seconds=time.monotonic() - began)


def _words(error: Exception) -> str:
    """Return one line, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:200]


@cache
def _engine() -> Engine:
    engine = create_engine(get_settings().database_url, read_seconds=READ_SECONDS)

    @event.listens_for(engine, "connect")
    def bound(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            if engine.dialect.is_mariadb:  # type: ignore[attr-defined]
                cursor.execute(f"SET SESSION max_statement_time = {STATEMENT_SECONDS}")
            else:
                cursor.execute(f"SET SESSION max_execution_time = {STATEMENT_SECONDS * 1000}")

    return engine
