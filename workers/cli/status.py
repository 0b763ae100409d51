"""`chat-workers status`: how everything stands, in the terminal."""

import sys

import click
from rich.console import Console
from rich.table import Table as RichTable

from workers.cli.output import as_json_option, print_json
from workers.operations.picture import Picture, look
from workers.operations.report import Table
from workers.operations.words import moment

EXIT_TROUBLE = 1


@click.command("status")
@as_json_option
def group(as_json: bool) -> None:
    """Show what is wrong now, then backlog, queues, workers, schedule, scans and backups. Exit code 1 if something is wrong."""
    picture = look()
    if as_json:
        print_json(picture.as_json())
    else:
        _print(picture)
    sys.exit(EXIT_TROUBLE if picture.troubles() else 0)


def _print(picture: Picture) -> None:
    console = Console(highlight=False)
    troubles = picture.troubles()
    if not troubles:
        console.print(f"[green]Nothing is wrong[/green] as of {moment(picture.at)}.")
    for trouble in troubles:
        colour = "red" if trouble.severity == "critical" else "yellow"
        console.print(f"[{colour}]{trouble.severity}[/{colour}]", end=" ")
        console.print(trouble.sentence, markup=False, end=" ")
        console.print(f"[dim]docs/runbook.md, {trouble.alert}[/dim]")
    for table in picture.tables():
        console.print()
        _print_table(console, table)


def _print_table(console: Console, table: Table) -> None:
    if not table.rows:
        console.print(f"[bold]{table.title}[/bold]: {table.empty}")
        return
    shown = RichTable(title=f"[bold]{table.title}[/bold]", title_justify="left", box=None, pad_edge=False)
    for column in table.header:
        shown.add_column(column, header_style="dim", overflow="fold")
    for row in table.rows:
        shown.add_row(*("" if cell is None else str(cell) for cell in row))
    console.print(shown, markup=False)
