"""`chat-workers audit`: who changed what with these commands."""

import click

from db.engine import get_engine
from tasks import audit
from workers.cli.group import Group
from workers.cli.output import Table, emit


@click.group("audit", cls=Group)
def group() -> None:
    """Who changed what with these commands: list."""


@group.command("list")
@click.option("--what", default="", help="Only commands that begin so, as in 'notifications' or 'schedule pause'.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
def list_command(what: str, limit: int) -> None:
    """List the latest orders, newest first: when, who, what, with which arguments, and what it came to."""
    found = audit.newest(get_engine(), what, limit)
    rows = [
        (each["began_at"], each["who"], each["what"], _words(each["arguments"]), each["outcome"] or "runs, or was killed")
        for each in found
    ]
    emit(found, [Table(("when", "who", "what", "with", "came to"), rows, empty="nothing was changed yet")])


def _words(arguments: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items())
