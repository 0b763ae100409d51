"""Read MySQL and Redis for the snapshot: each by one thread, every few seconds at most, and nobody waits past a deadline."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from db.engine import create_engine
from settings import get_settings
from tasks import broker

log = structlog.get_logger(__name__)

# Scrapes and pages of this long share one reading.
KEEP_SECONDS = 2.0
DEADLINE_SECONDS = 2.0
# The server itself ends a statement that takes longer; the socket's timeout is for a server that has gone silent.
STATEMENT_SECONDS = 1
READ_SECONDS = 2
# An answer of Redis takes a millisecond; a process that only wants to be seen must not wait for it.
REDIS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """The value of one part, or why it could not be read."""

    name: str
    value: Any = None
    fault: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.fault


@dataclass(frozen=True, slots=True)
class Begun:
    """One reading of all parts of a source: under way, or over a moment ago."""

    names: tuple[str, ...]
    found: dict[str, Reading]
    run: Future[None]

    def readings(self, deadline: float) -> list[Reading]:
        """Return a reading for each part by the deadline, in monotonic seconds; a part not read by then is a fault."""
        fault, seconds = "its reading broke off; the log says why", 0.0
        try:
            self.run.result(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            fault, seconds = f"no answer within {DEADLINE_SECONDS:g} s", DEADLINE_SECONDS
        return [self.found.get(name) or Reading(name, fault=fault, seconds=seconds) for name in self.names]


class Source:
    """MySQL or Redis, with the parts that are read from it, one after another."""

    def __init__(self, names: tuple[str, ...], read: Callable[[], Iterator[Reading]]) -> None:
        """`read` yields a reading for each name. If it raises all the same, each part not yet read is a fault."""
        self.names = names
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._lock = threading.Lock()
        self._latest: Begun | None = None
        self._read_at = float("-inf")

    def begin(self) -> Begun:
        """Start a reading, and return it; or the latest one, if that is under way or young enough."""
        with self._lock:
            if self._latest is None or (self._latest.run.done() and time.monotonic() - self._read_at > KEEP_SECONDS):
                found: dict[str, Reading] = {}
                self._latest = Begun(self.names, found, self._thread.submit(self._refresh, found))
            return self._latest

    def _refresh(self, found: dict[str, Reading]) -> None:
        try:
            for reading in self._read():
                found[reading.name] = reading
        except Exception:
            log.exception("a source could not be read to its end", parts=self.names)
        finally:
            self._read_at = time.monotonic()


def together(sources: tuple[Source, ...]) -> tuple[Reading, ...]:
    """Return the readings of all sources; they are read at the same time, so that all of it takes one deadline at most."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    begun = [source.begin() for source in sources]
    return tuple(reading for each in begun for reading in each.readings(deadline))


Parts = Mapping[str, Callable[[Any], Any]]


def database(parts: Parts) -> Source:
    """Return MySQL as a source; each part is a function of a connection."""

    def read() -> Iterator[Reading]:
        try:
            connection = _engine().connect()
        except SQLAlchemyError as error:
            yield from (Reading(name, fault=_sentence(error)) for name in parts)
            return
        with closing(connection):
            for name, part in parts.items():
                yield _reading(name, part, connection)
                if not connection.closed and not connection.invalidated:
                    connection.rollback()

    return Source(tuple(parts), read)


def redis(parts: Parts) -> Source:
    """Return the broker's Redis as a source; each part is a function of a client."""

    def read() -> Iterator[Reading]:
        first = _reading("", Redis.ping, client())
        for name, part in parts.items():
            yield _reading(name, part, client()) if first.ok else Reading(name, fault=first.fault, seconds=first.seconds)

    return Source(tuple(parts), read)


def client() -> Redis:
    """Return this process's client of the broker's Redis, which reconnects by itself."""
    return broker.shared(seconds=REDIS_SECONDS)


def _reading(name: str, part: Callable[[Any], Any], source: Any) -> Reading:
    began = time.monotonic()
    try:
        value = part(source)
    except (SQLAlchemyError, RedisError) as error:
        return Reading(name, fault=_sentence(error), seconds=time.monotonic() - began)
    except Exception as error:  # whatever one part trips over, the others are still asked for
        log.exception("a part of the snapshot could not be read", part=name)
        return Reading(name, fault=f"{type(error).__name__}: {_sentence(error)}", seconds=time.monotonic() - began)
    return Reading(name, value, seconds=time.monotonic() - began)


def _sentence(error: Exception) -> str:
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
