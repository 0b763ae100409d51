"""The demo's output: one line a phase with its duration, and a spinner on a terminal while the phase lasts."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


@dataclass(slots=True)
class Phase:
    """One step of the demo; `text` may be made more exact while it lasts."""

    text: str


class Screen:
    """stdout, for a person or for a log."""

    def __init__(self) -> None:
        self.console = Console(force_terminal=sys.stdout.isatty(), highlight=False, markup=False, emoji=False)
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal

    def line(self, text: str = "", style: str | None = None) -> None:
        self.console.print(text, style=style, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line that belongs to the phase above it."""
        self.line(f"{'':10}{text}")

    @contextmanager
    def phase(self, text: str, *, spinner: bool = True) -> Iterator[Phase]:
        """Print what is done and how long it took. Without `spinner` the phase shows its own progress."""
        phase, began = Phase(text), time.monotonic()
        if spinner and self.live:
            with self.console.status(f"{text} …", spinner="line"):
                yield phase
        else:
            yield phase
        self.line(f"{time.monotonic() - began:6.1f} s  {phase.text}")


def shown(path: Path) -> str:
    """Return a path as a person in this folder would write it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
