"""The progress of a long command on stderr: bars with their pace, and how Ctrl-C reaches it."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from db.batches.walk import Progress as Walked
from tasks.retention.policies import Policy
from tasks.words import printable


def _bars(*columns: ProgressColumn, **options: Any) -> Progress:
    """Return bars that are silent where stderr is no terminal."""
    console = Console(stderr=True)
    title = TextColumn("{task.description}", markup=False)
    return Progress(title, BarColumn(), *columns, console=console, disable=not console.is_terminal, **options)


@contextmanager
def bytes_done(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show one bar of bytes; yield the function that adds to it."""
    columns = DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with _bars(*columns, transient=True) as bars:
        task = bars.add_task(printable(title), total=total)
        yield lambda done: bars.advance(task, done)


Show = Callable[..., None]
"""Given the rows that are done, and perhaps a note, show them."""


@contextmanager
def policies_done() -> Iterator[Callable[[Policy], Show]]:
    """Show a bar for each policy, with its rows; yield the function that adds one."""
    rows = TextColumn("{task.fields[rows]:,} rows{task.fields[note]}", markup=False)
    with _bars(rows, TimeElapsedColumn()) as bars:

        def add(policy: Policy) -> Show:
            bar = bars.add_task(policy.name, total=None, rows=0, note="")
            return lambda rows, note="": bars.update(bar, rows=rows, note=note)

        yield add


def with_pace(show: Show) -> Callable[[Walked], None]:
    """Return the function that shows the progress of a run."""
    began = time.monotonic()

    def update(walked: Walked) -> None:
        pace = walked.rows / max(time.monotonic() - began, 0.1)
        show(walked.rows, f", waiting: {walked.held}" if walked.held else f", {pace:,.0f}/s")

    return update


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield the function that says whether Ctrl-C or SIGTERM has come. The second Ctrl-C ends the process as usual."""
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
