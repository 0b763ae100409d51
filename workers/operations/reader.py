"""Read MySQL and Redis for the snapshot: each by one thread, every few seconds at most, and nobody waits past a deadline."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine
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


Parts = Mapping[str, Callable[[Any], Any]]


class Source:
    """MySQL or Redis, with the parts that are read from it, one after another: each a function of what `connect` yields."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Any]], parts: Parts) -> None:
        self._connect = connect
        self._parts = parts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._lock = threading.Lock()
        self._run: Future[None] | None = None
        self._began = float("-inf")
        self._found: dict[str, Reading] = {}

    def begin(self) -> tuple[Future[None], dict[str, Reading]]:
        """Start a reading, and return it; or the latest one, if that is under way or young enough.

        Its parts are found as they are read; those that are not yet have a fault that says so.
        """
        with self._lock:
            if self._run is None or (self._run.done() and time.monotonic() - self._began > KEEP_SECONDS):
                late = f"no answer within {DEADLINE_SECONDS:g} s"
                self._found = {name: Reading(name, fault=late, seconds=DEADLINE_SECONDS) for name in self._parts}
                self._began = time.monotonic()
                self._run = self._thread.submit(self._read, self._found)
            return self._run, self._found

    def _read(self, found: dict[str, Reading]) -> None:
        try:
            with self._connect() as source:
                for name, part in self._parts.items():
                    found[name] = _reading(name, part, source)
        except (SQLAlchemyError, RedisError, OSError) as error:
            found.update({name: Reading(name, fault=_sentence(error)) for name in self._parts})


def together(*sources: Source) -> tuple[Reading, ...]:
    """Return the readings of all sources; they are read at the same time, so that all of it takes one deadline at most."""
    begun = [source.begin() for source in sources]
    wait([run for run, _ in begun], DEADLINE_SECONDS)
    return tuple(reading for _, found in begun for reading in list(found.values()))


def database() -> Connection:
    """Connect to MySQL; statements and answers have a deadline."""
    connection = engine().connect()
    is_mariadb = connection.dialect.is_mariadb  # type: ignore[attr-defined]
    limit = f"max_statement_time = {STATEMENT_SECONDS}" if is_mariadb else f"max_execution_time = {STATEMENT_SECONDS * 1000}"
    connection.exec_driver_sql(f"SET SESSION {limit}")
    return connection


@contextmanager
def redis() -> Iterator[Redis]:
    """Yield the client of Redis, once that has answered: if it is away, one sentence says so and not one for each part."""
    client().ping()
    yield client()


def client() -> Redis:
    """Return this process's client of the broker's Redis, which reconnects by itself."""
    return broker.shared(seconds=REDIS_SECONDS)


def _reading(name: str, part: Callable[[Any], Any], source: Any) -> Reading:
    began = time.monotonic()
    value, fault = None, ""
    try:
        value = part(source)
    except (SQLAlchemyError, RedisError) as error:
        fault = _sentence(error)
    except Exception as error:  # whatever one part trips over, the others are still asked for
        log.exception("a part of the snapshot could not be read", part=name)
        fault = f"{type(error).__name__}: {_sentence(error)}"
    return Reading(name, value, fault, time.monotonic() - began)


def _sentence(error: Exception) -> str:
    """Return one line, without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:200]


@cache
def engine() -> Engine:
    """Return this process's engine whose answers have a deadline of seconds."""
    return create_engine(get_settings().database_url, read_seconds=READ_SECONDS)
