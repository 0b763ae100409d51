"""How a source is read: by one thread, once at a time, every few seconds at most; and nobody waits past a deadline."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog

log = structlog.get_logger(__name__)

# Scrapes and pages of this long share one reading.
KEEP_SECONDS = 2.0
DEADLINE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading one section: its value, or why there is none."""

    name: str
    value: Any = None
    fault: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.fault


@dataclass(frozen=True, slots=True)
class Begun:
    """One reading of all sections of a source: under way, or over a moment ago."""

    names: tuple[str, ...]
    found: dict[str, Reading]
    run: Future[None]

    def readings(self, deadline: float) -> list[Reading]:
        """Return a reading for each section by the deadline, in monotonic seconds; a section not read by then is a fault."""
        fault, seconds = "its reading broke off; the log says why", 0.0
        try:
            self.run.result(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            fault, seconds = f"no answer within {DEADLINE_SECONDS:g} s", DEADLINE_SECONDS
        return [self.found.get(name) or Reading(name, fault=fault, seconds=seconds) for name in self.names]


class Source:
    """MySQL or Redis, with the sections that are read from it, one after another."""

    def __init__(self, names: tuple[str, ...], read: Callable[[], Iterator[Reading]]) -> None:
        """`read` yields a reading for each name. If it raises all the same, each section not yet read is a fault."""
        self.names = names
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="source")
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
