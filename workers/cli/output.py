"""Print what a command has found: JSON for programs; lines and tables for people, in which no data reaches the terminal raw."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import click
from rich import table
from rich.console import Console
from rich.text import Text

from tasks.words import moment, printable
from workers.json_text import json_text

# So wide that nothing is folded where no person looks: in a pipe a row is a line.
UNFOLDED_COLUMNS = 10_000
CAME_TO = "workers.cli.came_to"
LONGEST_NAME = 0.55  # of the width


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header and perhaps a title. `empty` is said where there are none; on a terminal, wide cells are folded.

    A cell may be a pair of a text and its style.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    empty: str = ""


Part = str | tuple[str, str]
"""A piece of a line, or a pair of it and its style (rich's: a colour, `bold`, `dim`)."""
Line = str | Sequence[Part] | Table


AS_JSON = click.Option(
    ["--json"],
    is_flag=True,
    expose_value=False,
    callback=lambda context, _option, given: context.meta.update({"workers.cli.as_json": given}),
    help="Print JSON.",
)


def as_json() -> bool:
    """Return whether the command was asked for JSON."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get("workers.cli.as_json"))


def emit(value: object, lines: Iterable[Line], *, wrong: object = False) -> None:
    """Print the value as JSON if that was asked for, else the lines, which a generator need not make unless they are wanted.

    End the command with exit code 1 if what was found is `wrong`. For the audit it leaves the value's numbers, and how long its
    lists are: never words, which may be a secret.
    """
    if isinstance(value, dict) and (context := click.get_current_context(silent=True)):
        counts = {name: len(each) if isinstance(each, list) else each for name, each in value.items()}
        context.meta[CAME_TO] = {name: count for name, count in counts.items() if type(count) is int}
    if as_json():
        click.echo(json_text(value))
    else:
        for line in lines:
            say(line)
    if wrong:
        raise SystemExit(1)


def say(*lines: Line, err: bool = False) -> None:
    """Print lines for people to stdout, or to stderr."""
    console = Console(stderr=err, highlight=False)
    if not console.is_terminal:
        console.width = UNFOLDED_COLUMNS
    for line in lines:
        if not isinstance(line, Table):
            console.print(_text(line), soft_wrap=True)
        elif line.rows or line.empty:
            empty = "" if line.rows else f": {line.empty}" if line.title else line.empty
            if line.title or empty:
                console.print(_text([(line.title, "bold"), empty]), soft_wrap=True)
            if line.rows:
                console.print(_drawn(line, console.width))


def _text(line: str | Sequence[Part]) -> Text:
    parts = [line] if isinstance(line, str) else line
    return Text.assemble(*((printable(part), "") if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts))


def _drawn(shown: Table, width: int) -> table.Table:
    drawn = table.Table(box=None, pad_edge=False)
    for name, cells in zip(shown.header, zip(*shown.rows, strict=True), strict=True):
        numbers = all(isinstance(cell, int | float) for cell in cells)
        # Names stand first and are read as one word: other columns are folded, unless a name is very long.
        whole = not drawn.columns and max(_cell(cell).cell_len for cell in cells) <= LONGEST_NAME * width
        heading = _text([(name.replace("_", " "), "dim")])
        drawn.add_column(heading, justify="right" if numbers else "left", overflow="fold", no_wrap=whole)
    for row in shown.rows:
        drawn.add_row(*map(_cell, row))
    return drawn


def _cell(value: object) -> Text:
    if isinstance(value, tuple):
        return _text([value])
    return _text(moment(value) if isinstance(value, datetime) else "" if value is None else str(value))
