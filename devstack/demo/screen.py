"""The demo's output: one line a phase with its duration, and a spinner on a terminal while the phase lasts."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

# No line of the demo is longer.
COLUMNS = 100


@dataclass(slots=True)
class Phase:
    """One step of the demo; `text` may be made more exact while it lasts."""

    text: str


class Screen:
    """stdout, for a person or for a log; with `record` it is kept, so that `picture` can draw it."""

    def __init__(self, *, record: bool = False) -> None:
        terminal = sys.stdout.isatty() and not record
        width = COLUMNS if record else None
        self.console = Console(force_terminal=terminal, highlight=False, markup=False, emoji=False, record=record, width=width)
        self.live = terminal and not self.console.is_dumb_terminal

    def picture(self, title: str) -> str:
        """Return all that was printed as an SVG of a terminal, which loads no font from elsewhere."""
        return re.sub(r"@font-face \{.*?\}\s*", "", self.console.export_svg(title=title, clear=False), flags=re.DOTALL)

    def line(self, text: str = "", style: str | None = None) -> None:
        self.console.print(text, style=style, soft_wrap=True)

    def note(self, text: str, style: str | None = "dim") -> None:
        """Print a line that belongs to the phase above or below it."""
        self.line(f"{'':10}{text}", style=style)

    @contextmanager
    def phase(self, text: str, *, spinner: bool = True) -> Iterator[Phase]:
        """Print what is done and how long it took. Without `spinner` the phase shows its own progress."""
        phase, began = Phase(text), time.monotonic()
        if spinner and self.live:
            with self.console.status(f"{text} …", spinner="line"):
                yield phase
        else:
            yield phase
        self.console.print(Text.assemble((f"{time.monotonic() - began:6.1f} s", "cyan"), f"  {phase.text}"), soft_wrap=True)


def shown(path: Path) -> str:
    """Return a path as a person in this folder would write it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
