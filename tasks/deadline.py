"""Cut connections off at a deadline, from outside: no read or write outlasts it, however slowly the other end answers.

A socket's timeout bounds one recv; a status line, headers, chunk sizes or a body take as many as the server likes, inside of
libraries. So a thread beside the one that asks shuts down its connections when the deadline is over.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

from tasks.shutdown import stop_requested

T = TypeVar("T")
U = TypeVar("U")

TICK_SECONDS = 0.25
STOP_SECONDS = 5.0
"""How long work may go on once the worker was asked to stop."""


class OverdueError(TimeoutError):
    """A deadline has passed, or the worker is stopping; what was read before is not the whole of anything."""


def within(seconds: float, work: Callable[[], T], otherwise: U) -> T | U:
    """Return what `work` returns within `seconds`, or raise as it does; else return `otherwise`: then a thread goes on."""
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised below
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    wait([found], seconds)
    return found.result() if found.done() else otherwise


class Deadline:
    """Bounds what a `with` block asks of servers; at its end connections that it holds are shut down.

    The block then raises OverdueError, whatever else it raised: a library may take a connection that was cut for the end of
    the headers or of the body. `over` ends the watch early, when everything has been read.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._began = time.monotonic()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._held: dict[int, socket.socket] = {}

    def __enter__(self) -> "Deadline":
        self._before = innermost.get()
        innermost.set(self)
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        innermost.set(self._before)
        self.over()
        if self.passed and (error is None or isinstance(error, Exception)):
            raise self._error() from error

    def extend(self, seconds: float) -> None:
        """Allow more time, once the length of what is to be read is known."""
        self._seconds += seconds

    def check(self) -> None:
        """Raise OverdueError if the deadline has passed."""
        if self.passed:
            raise self._error()

    def over(self) -> None:
        """Stop watching: its connections may be used for something else now."""
        self._over.set()
        with self._lock:
            while self._held:
                self._held.popitem()[1].close()

    def hold(self, connection: object, used: socket.socket) -> None:
        """Shut this connection's socket down at the end. Raise OverdueError if that is past."""
        self.check()
        with self._lock:
            # A duplicate reaches the connection also after TLS has taken the socket over, and is never another one's number.
            self._held[id(connection)] = socket.socket(fileno=os.dup(used.fileno()))

    def let_go(self, connection: object) -> None:
        """Hold the connection no more: it belongs to another request."""
        with self._lock:
            if held := self._held.pop(id(connection), None):
                held.close()

    def _error(self) -> OverdueError:
        return OverdueError("the worker is stopping" if stop_requested() else f"it took longer than {self._seconds:.0f} s")

    def _watch(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            lasted = time.monotonic() - self._began
            if stop_requested():
                self._seconds = min(self._seconds, lasted + STOP_SECONDS)
            if lasted >= self._seconds:
                self.passed = True
                with self._lock:
                    for held in self._held.values():
                        with suppress(OSError):  # the other end was faster
                            held.shutdown(socket.SHUT_RDWR)


innermost: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


class Watched:
    """A mixin for connections of urllib3: each request is held by its thread's deadline, from connecting on."""

    _deadline: Deadline | None = None
    sock: Any

    def _new_conn(self) -> Any:
        made = super()._new_conn()  # type: ignore[misc]
        self._hold(made)
        return made

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        if self.sock is not None:  # kept from an earlier request
            self._hold(self.sock)
        super().putrequest(*arguments, **options)  # type: ignore[misc]

    def _hold(self, used: socket.socket) -> None:
        if self._deadline:
            self._deadline.let_go(self)
        self._deadline = innermost.get()
        if self._deadline:
            self._deadline.hold(self, used)


def watched(pool: type, connection: type, watch: type = Watched) -> type:
    """Return a pool of urllib3's whose connections are watched."""
    return type("Pool", (pool,), {"ConnectionCls": type("Connection", (watch, connection), {})})
