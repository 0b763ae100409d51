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


class Source:
    """MySQL or Redis, with the sections that are read from it, one after another."""

    def __init__(self, names: tuple[str, ...], read: Callable[[], Iterator[Reading]]) -> None:
        """`read` yields a reading for each name. If it raises all the same, what it has not come to is a fault."""
        self.names = names
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="source")
        self._lock = threading.Lock()
        self._running: Future[None] | None = None
        self._found: dict[str, Reading] = {}
        self._read_at = float("-inf")

    def begin(self) -> None:
        """Start a reading unless one is under way or the last is young enough."""
        with self._lock:
            if self._running is None and time.monotonic() - self._read_at > KEEP_SECONDS:
                self._found = {}
                self._running = self._thread.submit(self._refresh, self._found)

    def readings(self, deadline: float) -> list[Reading]:
        """Return a reading for each section by the deadline, in monotonic seconds.

        A caller who comes while a reading is under way shares it. What it has not come to by the deadline is a fault.
        """
        self.begin()
        with self._lock:
            running, found = self._running, self._found
        if running is not None:
            try:
                running.result(max(deadline - time.monotonic(), 0))
            except TimeoutError:
                late = f"no answer within {DEADLINE_SECONDS:g} s"
                return [found.get(name) or Reading(name, fault=late, seconds=DEADLINE_SECONDS) for name in self.names]
        return [found.get(name) or Reading(name, fault="its reading broke off; the log says why") for name in self.names]

    def _refresh(self, found: dict[str, Reading]) -> None:
        try:
            for reading in self._read():
                found[reading.name] = reading
        except Exception:
            log.exception("a source could not be read to its end", parts=self.names)
        finally:
            with self._lock:
                self._running, self._read_at = None, time.monotonic()


def together(sources: tuple[Source, ...]) -> tuple[Reading, ...]:
    """Return the readings of all sources; they are read at the same time, so that all of it takes one deadline at most."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    for source in sources:
        source.begin()
    return tuple(reading for source in sources for reading in source.readings(deadline))
