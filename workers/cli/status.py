"""`chat-workers status`: how everything stands, in the terminal."""

import sys
from collections.abc import Iterator

import click

from tasks.words import moment
from workers.cli.group import Command
from workers.cli.output import Line, Table, as_json_option, emit
from workers.operations.picture import Picture, look

EXIT_TROUBLE = 1


@click.command("status", cls=Command)
@as_json_option
def group(as_json: bool) -> None:
    """Show what is wrong now, then backlog, queues, workers, schedule, scans and backups. Exit code 1 if something is wrong."""
    picture = look()
    emit(picture.as_json(), as_json, _lines(picture))
    sys.exit(EXIT_TROUBLE if picture.troubles() else 0)


def _lines(picture: Picture) -> Iterator[Line]:
    troubles = picture.troubles()
    if not troubles:
        yield (("Nothing is wrong", "green"), f" as of {moment(picture.at)}.")
    for trouble in troubles:
        colour = "red" if trouble.severity == "critical" else "yellow"
        yield ((trouble.severity, colour), f" {trouble.sentence} ", (f"docs/runbook.md, {trouble.alert}", "dim"))
    for table in picture.tables():
        yield ""
        yield Table(table.header, table.rows, table.title, table.empty)
