"""What a long command shows while it works: a bar with rows, pace and time left on stderr; and how Ctrl-C reaches it."""

import getpass
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from db.batches.place import Place
from db.batches.target import Value
from db.batches.walk import Progress as Walked
from tasks.retention.policies import Policy


class Live:
    """A bar for each policy, by the share of its keys that is done; silent where stderr is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def walking(self, policy: Policy) -> Callable[[Walked], None]:
        """Return what shows the progress of a run."""
        show, began = self._bar(policy.name), time.monotonic()

        def update(walked: Walked) -> None:
            pace = walked.rows / max(time.monotonic() - began, 0.1)
            note = f", waiting: {walked.held}" if walked.held else f", {pace:,.0f}/s"
            show(walked.place, walked.rows, note)

        return update

    def counting(self, policy: Policy) -> Callable[[Place, int], None]:
        """Return what shows the progress of a count."""
        show = self._bar(policy.name)
        return lambda place, rows: show(place, rows, "")

    def _bar(self, name: str) -> Callable[[Place, int, str], None]:
        bar = self._bars.add_task(name, total=1.0, rows=0, note="")
        first: list[float] = []

        def show(place: Place, rows: int, note: str) -> None:
            if place.after is None or place.until is None:
                return
            here, last = _number(place.after), _number(place.until)
            first[1:] = [] if first else [here]
            share = (here - first[0]) / max(last - first[0], 1.0)
            self._bars.update(bar, completed=min(share, 1.0), rows=rows, note=note)

        return show


def _number(value: Value) -> float:
    return value.timestamp() if isinstance(value, datetime) else float(value)


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield what says whether Ctrl-C or SIGTERM has come. The second Ctrl-C ends the process as usual."""
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def who() -> str:
    """Return who gives the order, for the ledger."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
