"""`chat-workers status`: how everything stands, in the terminal; also the tables of one job's own status command."""

from collections.abc import Iterable, Iterator

import click

from db.engine import get_engine
from tasks import facts
from tasks.facts import Row, read_tables
from tasks.words import moment
from workers.cli.group import Command
from workers.cli.output import Line, Table, emit
from workers.operations.alerts import RUNBOOK
from workers.operations.snapshot import Snapshot, read_all


@click.command("status", cls=Command)
def group() -> None:
    """Show what is wrong now, then backlog, queues, workers, schedule, scans and backups. Exit code 1 if something is wrong."""
    snapshot = read_all()
    emit(snapshot.as_json(), _lines(snapshot), wrong=snapshot.troubles())


def _lines(snapshot: Snapshot) -> Iterator[Line]:
    troubles = snapshot.troubles()
    if not troubles:
        yield (("Nothing is wrong", "green"), f" as of {moment(snapshot.at)}.")
    rows: list[tuple[object, object]] = []
    for trouble in troubles:
        colour = "red" if trouble.severity == "critical" else "yellow"
        rows += [((trouble.severity, colour), trouble.sentence), ("", (f"{RUNBOOK}, {trouble.alert}", "dim"))]
    yield Table(("wrong", f"as of {moment(snapshot.at)}"), rows)
    yield from _tables(snapshot.tables())


def job_status(tables: Iterable[facts.Table]) -> None:
    """Print a job's tables, those that are read on demand too."""
    with get_engine().connect() as connection:
        found = read_tables(tables, connection, on_demand=True)
    emit(found, _tables((table, found[table.name]) for table in tables))


def _tables(found: Iterable[tuple[facts.Table, list[Row]]]) -> Iterator[Line]:
    for table, rows in found:
        if table.title:
            yield ""
            yield Table(table.header(), table.cells(rows), table.title, table.without_rows())
