"""`chat-workers schedule`: what beat starts, when it last did and will next, whether it is late; and start one now."""

import json
from datetime import datetime
from typing import Any

import click
import redis
from kombu.exceptions import OperationalError

from beat_schedule import BEAT_SCHEDULE
from tasks.retention.task import STARTED_BY
from workers.cli.live import who
from workers.cli.table import duration, echo_table
from workers.operations import beat
from workers.operations.beat import LATE_SECONDS, Entry
from workers.operations.redis import client


@click.group("schedule")
def group() -> None:
    """The schedule of beat_schedule.py, in UTC: list, run."""


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """List each entry with its next and last run. Exit code 1 if one is late or unknown to beat."""
    try:
        rows = [_state(entry) for entry in beat.read(client()).entries]
    except redis.RedisError as error:
        raise click.ClickException(f"Redis, where beat keeps its times, cannot be read: {error}") from None
    if as_json:
        click.echo(json.dumps(rows, default=str))
    else:
        echo_table(
            ("name", "task", "when (UTC)", "last sent", "next", ""),
            [(r["name"], r["task"], r["when"], _clock(r["last"]), _clock(r["next"]), _note(r)) for r in rows],
        )
    if any(row["late_seconds"] is None or row["late_seconds"] for row in rows):
        raise SystemExit(1)


@group.command("run")
@click.argument("name", type=click.Choice(list(BEAT_SCHEDULE)))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run_command(name: str, as_json: bool) -> None:
    """Send an entry's task to its queue now; the schedule stays as it is."""
    from workers.app import app

    entry = BEAT_SCHEDULE[name]
    try:
        sent = app.send_task(entry["task"], retry=False, headers={STARTED_BY: who()}, **entry["options"])
    except OperationalError as error:
        raise click.ClickException(f"the broker at CELERY_BROKER_URL took nothing: {error}") from None
    if as_json:
        click.echo(json.dumps({"name": name, "task": entry["task"], "id": sent.id}))
    else:
        click.echo(f"sent {entry['task']} ({sent.id}); a worker has {duration(entry['options']['expires'])} to take it")


def _state(entry: Entry) -> dict[str, Any]:
    late = (round(entry.late_seconds) if entry.late_seconds > LATE_SECONDS else 0) if entry.known else None
    return {
        "name": entry.name,
        "task": entry.task,
        "when": entry.when,
        "last": entry.last,
        "next": entry.next,
        "late_seconds": late,
    }


def _clock(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "-"


def _note(row: dict[str, Any]) -> str:
    if row["late_seconds"] is None:
        return "unknown to beat: has it run since this entry was made?"
    return f"late by {duration(row['late_seconds'])}" if row["late_seconds"] else ""
