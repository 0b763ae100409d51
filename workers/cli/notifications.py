"""`chat-workers notifications`: how delivery stands, the history of a row, send or validate one, play failed ones again."""

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from db.engine import get_engine
from tasks.notifications import replay as replaying
from tasks.notifications import run
from tasks.notifications.history import history as read_history
from tasks.notifications.outcome import Kind
from tasks.notifications.status import MOST_BY_STATUS
from tasks.notifications.status import status as read_status
from workers.cli.output import age, as_json_option, print_json

SHOWN = 20


@click.group("notifications")
def group() -> None:
    """Push delivery: status, show, send, replay."""


@group.command()
@as_json_option
def status(as_json: bool) -> None:
    """Show rows by status, what waits and why, the last hour's outcomes, and each provider's breaker."""
    found = read_status(get_engine())
    if as_json:
        print_json(found.as_json())
        return
    console = Console()
    counts = (f"{_bounded(count, MOST_BY_STATUS[word])} {word}" for word, count in found.notifications.items())
    console.print("notifications: " + ", ".join(counts))
    if found.oldest_pending_age is not None:
        console.print(f"oldest PENDING: {age(found.oldest_pending_age)}")
    _table(console, "under way or waiting", found.waiting, ("notifications", "due", "waiting_on", "reason"))
    _table(console, "devices, last hour", found.last_hour, ("provider", "outcome", "devices", "reason"))
    _table(console, "not simply sent, last hour", found.ended_last_hour, ("status", "notifications", "reason"))
    for provider in found.providers:
        if provider["open"]:
            state = f"[red]HELD since {provider['opened_at']:%H:%M:%S}Z[/red]: {provider['reason']}"
        elif provider["paused_until"]:
            state = f"[yellow]paused until {provider['paused_until']:%H:%M:%S}Z[/yellow] at its own request"
        else:
            state = "[green]sending[/green]"
        console.print(f"{provider['provider']}: {state}")


@group.command()
@click.argument("notification_id", type=int)
@as_json_option
def show(notification_id: int, as_json: bool) -> None:
    """Show all that is known of one row, device by device; tokens as short hashes, no content."""
    found = read_history(get_engine(), notification_id)
    if found is None:
        raise click.ClickException(f"there is no notification {notification_id}")
    if as_json:
        print_json(found.as_json())
        return
    console = Console()
    row = found.notification
    console.print(
        f"notification {row['id']}: {row['delivery_status']}, created {row['created_at']}Z, sent {row['sent_at'] or 'never'}"
    )
    if row["error_message"]:
        console.print(f"  {row['error_message']}", markup=False)
    if found.waiting:
        waiting = found.waiting
        holder = "leased by a worker until" if waiting["lease"] else "next try"
        console.print(
            f"  {holder} {waiting['due_at']}Z" + (f", waits for {waiting['waiting_on']}" if waiting["waiting_on"] else "")
        )
    _table(console, "devices", found.devices, ("device", "state", "attempts", "due", "dead_since", "reason"))
    _table(console, "settled before", found.history, ("settled_at", "status", "reason"))


@group.command()
@click.argument("notification_id", type=int)
@click.option("--dry-run", is_flag=True, help="Have the provider validate it (FCM's validate_only); nothing is delivered.")
@as_json_option
def send(notification_id: int, dry_run: bool, as_json: bool) -> None:
    """Send one PENDING row, or a FAILED one that is due, from this process."""
    if dry_run:
        _validate(notification_id, as_json)
        return
    if read_history(get_engine(), notification_id) is None:
        raise click.ClickException(f"there is no notification {notification_id}")
    summary = run.deliver(notification_id)
    if not summary.rows:
        raise click.ClickException("nothing was sent: it is settled, not due yet, held by a worker, or its provider is held")
    found = read_history(get_engine(), notification_id)
    assert found is not None  # noqa: S101 - it was there a moment ago
    result = {key: found.notification[key] for key in ("id", "delivery_status", "error_message")}
    if as_json:
        print_json(result)
    else:
        click.echo(f"{result['delivery_status']}" + (f": {result['error_message']}" if result["error_message"] else ""))
    if result["delivery_status"] != "SENT":
        raise SystemExit(1)


def _validate(notification_id: int, as_json: bool) -> None:
    try:
        outcomes = run.validate(notification_id)
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from None
    rows = [{"device": d.key, "valid": o.kind is Kind.SENT, "outcome": o.kind.value, "reason": o.reason} for d, o in outcomes]
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("the row names no usable device")
    for row in [] if as_json else rows:
        click.echo(f"{row['device']}: " + ("valid" if row["valid"] else f"{row['outcome']}, {row['reason']}"))
    if any(row["outcome"] not in {Kind.SENT, Kind.HELD} for row in rows):
        raise SystemExit(1)


@group.command()
@click.option("--status", "wanted", type=click.Choice(["FAILED", "BOUNCED"]), default="FAILED", show_default=True)
@click.option("--reason", default="", help="Only rows whose error_message contains this.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True)
@click.option("--yes", is_flag=True, help="Do it; without this the rows are only shown.")
@as_json_option
def replay(wanted: str, reason: str, limit: int, yes: bool, as_json: bool) -> None:
    """Make settled rows of the last 24 h PENDING again. Shows them first; --yes does it.

    Every device of a row is sent to again. Rows that wait for a retry are left alone.
    """
    rows = replaying.replayable(get_engine(), status=wanted, reason=reason, limit=limit)
    replayed = replaying.replay(get_engine(), [row["id"] for row in rows], wanted) if yes else 0
    if as_json:
        print_json({"found": len(rows), "replayed": replayed, "ids": [row["id"] for row in rows]})
        return
    console = Console()
    _table(console, f"{len(rows)} {wanted} rows", rows[:SHOWN], ("id", "why"))
    if len(rows) > SHOWN:
        console.print(f"… and {len(rows) - SHOWN} more")
    if yes:
        console.print(f"{replayed} rows are PENDING again")
    elif rows:
        console.print("nothing was changed; add --yes to play them again")


def _bounded(count: int, most: int) -> str:
    return f"{count:,}{'+' if count >= most else ''}"


def _table(console: Console, title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    if not rows:
        return
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    console.print(table)
