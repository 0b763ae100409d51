"""The signals that end a stack: Ctrl-C, SIGTERM and a closed terminal take it down in order, once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the program as Ctrl-C does, unless it handles them itself.

    At the end every handler is as it was, also after `deaf`. Outside the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # None stands for a handler that Python did not set and cannot set again.
    before = {number: handler for number in ENDING if (handler := signal.getsignal(number)) is not None}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deaf() -> None:
    """Ignore further signals while the services stop, which takes seconds and must not be cut short."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    # The status that a shell shows for a program ended by this signal.
    raise SystemExit(128 + number)
