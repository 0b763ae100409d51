"""`chat-workers schedule`: list beat's entries with their last and next runs, pause one, and start one now."""

from datetime import timedelta

import click
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from beat_schedule import BEAT_SCHEDULE
from db.engine import get_engine
from tasks.audit import who
from tasks.jobs import STARTED_BY
from tasks.pause import ENTRY
from tasks.words import duration
from workers import paused_entries
from workers.cli import pauses
from workers.cli.group import Group, always
from workers.cli.output import Table, emit
from workers.cli.pauses import pause_options
from workers.operations import beat
from workers.operations.beat import SCHEDULE, is_late
from workers.operations.reader import client

name_argument = click.argument("name", type=click.Choice(list(BEAT_SCHEDULE)))


@click.group("schedule", cls=Group, errors=(RedisError, OperationalError))
def group() -> None:
    """The schedule of beat_schedule.py, in UTC: list, pause, resume, run."""


@group.command("list")
def list_command() -> None:
    """List each entry with its next and last run. Exit code 1 if one is late, or not as beat has it."""
    rows = beat.entries(client())
    differences = [(row["entry"], row["difference"]) for row in rows if row["difference"]]
    lines = [Table(SCHEDULE.header(), SCHEDULE.cells(rows)), Table(("differs", "how"), differences)]
    emit(rows, lines, wrong=differences or any(map(is_late, rows)))


@group.command(changes=always)
@name_argument
@pause_options
def pause(name: str, lasting: timedelta | None, why: str) -> None:
    """Have no beat send an entry, also after restarts. What others start goes on: the API's nudges, `schedule run`."""
    pauses.pause([ENTRY + name], lasting, why, f"schedule resume {name}")
    paused_entries.refresh(get_engine(), client())


@group.command(changes=always)
@name_argument
def resume(name: str) -> None:
    """Take a pause back. If the entry fell due meanwhile it is sent once."""
    pauses.resume([ENTRY + name])
    paused_entries.refresh(get_engine(), client())


@group.command("run", changes=always)
@name_argument
def run_command(name: str) -> None:
    """Send an entry's task to its queue now; the schedule stays as it is."""
    from workers.app import app

    entry = BEAT_SCHEDULE[name]
    sent = app.send_task(entry["task"], retry=False, headers={STARTED_BY: who()}, **entry["options"])
    left = duration(entry["options"]["expires"])
    said = f"sent {entry['task']} ({sent.id}); a worker has {left} to take it"
    emit({"name": name, "task": entry["task"], "id": sent.id}, [said])
