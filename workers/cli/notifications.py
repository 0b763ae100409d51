"""`chat-workers notifications`: the state of delivery, the history of a row, preview, test, pause, cancel or replay."""

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from typing import Any, get_args

import click

from db.engine import get_engine
from settings import get_settings
from tasks.notifications import cancel as cancelling
from tasks.notifications import replay as replaying
from tasks.notifications import run
from tasks.notifications.apps import push_apps
from tasks.notifications.cancel import Chosen
from tasks.notifications.devices import DEFAULT_APP, ENVIRONMENTS
from tasks.notifications.facts import TABLES
from tasks.notifications.history import History
from tasks.notifications.history import history as read_history
from tasks.notifications.notification import NotificationType
from tasks.notifications.outcome import Kind
from tasks.notifications.providers import PROVIDERS
from tasks.words import moment
from workers.cli import pauses
from workers.cli.group import Group, always, if_told
from workers.cli.output import Line, Table, emit
from workers.cli.pauses import pause_options
from workers.cli.progress import asked_to_stop
from workers.cli.status import job_status

SHOWN = 20
provider_option = click.option(
    "--provider", "providers", type=click.Choice(tuple(PROVIDERS)), multiple=True, help="Only this one; may be given again."
)

app_option = click.option("--app", "apps", multiple=True, help="Only this one's devices; may be given again.")


@click.group("notifications", cls=Group)
def group() -> None:
    """Push delivery: status, show, preview, test, pause, resume, cancel, replay."""


@group.command()
def status() -> None:
    """Show the backlog, what waits and why, each provider's breaker, and the last hour's outcomes."""
    job_status(TABLES)


@group.command()
@click.argument("notification_id", type=int)
def show(notification_id: int) -> None:
    """Show all that is known of one row, device by device; tokens as short hashes, no content."""
    with get_engine().connect() as connection:
        found = read_history(connection, notification_id)
    if found is None:
        raise click.ClickException(f"there is no notification {notification_id}")
    emit(found, _show(found))


def _show(found: History) -> Iterator[Line]:
    row, waiting = found.notification, found.waiting
    created, sent = moment(row["created_at"]), moment(row["sent_at"])
    yield f"notification {row['id']}: {row['delivery_status']}, created {created}, sent {sent}"
    if row["error_message"]:
        yield f"  {row['error_message']}"
    if waiting:
        holder = "leased by a worker until" if waiting["lease"] else "next try"
        on = f", waits for {waiting['waiting_on']}" if waiting["waiting_on"] else ""
        yield f"  {holder} {moment(waiting['due_at'])}{on}"
    yield _table("devices", found.devices, ("device", "state", "attempts", "due", "dead_since", "reason"))
    yield _table("settled before", found.history, ("settled_at", "status", "reason"))


@group.command(changes=always)
@provider_option
@app_option
@pause_options
def pause(providers: tuple[str, ...], apps: tuple[str, ...], lasting: timedelta | None, why: str) -> None:
    """Send nothing from within a second on, fleet-wide and also after restarts. Rows wait and burn no attempt. All, or some."""
    if unknown := set(apps) - (known := push_apps(get_settings())).keys():
        raise click.UsageError(f"--app: there is no app {', '.join(unknown)}; there are {', '.join(known)}")
    pauses.pause(_named(providers, apps), lasting, why, "notifications resume")


@group.command(changes=always)
@provider_option
@app_option
def resume(providers: tuple[str, ...], apps: tuple[str, ...]) -> None:
    """Take pauses back: all of them, or those of some providers or apps. A pause of all is taken back as a whole."""
    pauses.resume(_named(providers, apps) if providers or apps else [])


@group.command(changes=if_told)
@provider_option
@app_option
@click.option("--sender", "sender_id", type=int, metavar="ID")
@click.option("--conversation", "conversation_id", type=int, metavar="ID")
@click.option("--recipient", "recipient_id", type=int, metavar="ID")
@click.option("--type", "notification_type", type=click.Choice(get_args(NotificationType)))
@click.option("--everything", is_flag=True, help="All that wait, whoever they are for.")
@click.option("--why", required=True, help="Stands in each row, and may be read by users of the API.")
@click.option("--yes", is_flag=True, help="Do it; without this the rows are only counted.")
def cancel(providers: tuple[str, ...], apps: tuple[str, ...], everything: bool, why: str, yes: bool, **ids: Any) -> None:
    """Settle what waits as BOUNCED, `cancelled: …`, a batch at a time; Ctrl-C ends behind a batch. Shows first; --yes does it.

    Several options narrow the choice. --provider and --app mean rows that have no other devices. What a worker is sending just
    now is left to it: pause first, and cancel again after half a minute.
    """
    columns = {name: value for name, value in ids.items() if value is not None}
    if bool(columns or providers or apps) == everything:
        raise click.UsageError("say which rows, as in --sender 7, or --everything")
    with asked_to_stop() as stop:
        done = cancelling.cancel(get_engine(), Chosen(columns, providers, apps), why if yes else None, stop)
        stopped = stop()
    lines = [f"{done.rows:,} {'cancelled' if yes else 'would be cancelled'}, {done.held:,} are in a worker's hands or locked"]
    if stopped:
        lines.append("stopped before all were seen")
    if not yes and done.rows:
        lines += [f"the first: {', '.join(map(str, done.ids))}", "nothing was changed; add --yes to cancel them"]
    found = {"found": done.rows, "cancelled": done.rows * yes, "held": done.held, "stopped": stopped, "ids": done.ids}
    emit(found, lines, wrong=stopped)


def _named(providers: tuple[str, ...], apps: tuple[str, ...]) -> list[str]:
    """Return what pauses call each of these providers of each of these apps."""
    return [f"{provider}.{app}" if app else provider for provider, app in product(providers or ("",), apps or ("",))]


@group.command()
@click.argument("notification_id", type=int)
@click.option("--app", help="What each provider of this app would send, whatever devices the row has.")
def preview(notification_id: int, app: str | None) -> None:
    """Show exactly what each device of a row would be sent, tokens and credentials left out. It holds the row's words."""
    try:
        shown = run.preview(notification_id, app)
    except LookupError as error:
        raise click.ClickException(str(error.args[0])) from None
    lines = [line for key, message in shown for line in (key, *json.dumps(message, indent=2, ensure_ascii=False).splitlines())]
    emit([{"device": key, **message} for key, message in shown], lines or ["the row names no usable device"])


@group.command(changes=if_told)
@click.option("--app", default=DEFAULT_APP, show_default=True)
@click.option("--provider", type=click.Choice(tuple(PROVIDERS)), required=True)
@click.option("--token", required=True, help="The device's, or a browser's subscription as JSON; - reads it from stdin.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Of an iPhone's token, where it is not the app's own.")
@click.option("--dry-run", is_flag=True, help="Have FCM validate it (validate_only); the others cannot.")
def test(app: str, provider: str, token: str, environment: str | None, dry_run: bool) -> None:
    """Send a test push to one device, without a row; print the provider's id of the message."""
    if token == "-":  # noqa: S105 - unseen in the list of processes
        token = sys.stdin.read().strip()
    try:
        entry = json.loads(token) if token.startswith("{") else {"token": token}
        outcome = run.try_out({**entry, "provider": provider, "app": app, "environment": environment}, dry_run=dry_run)
    except (ValueError, LookupError) as error:
        raise click.UsageError(f"--token: {error.args[0]}") from None
    said = {"outcome": outcome.kind.value, "reason": outcome.reason}
    emit(said, [": ".join(said.values())], wrong=outcome.kind not in {Kind.SENT, Kind.HELD})


@group.command(changes=if_told)
@click.option("--status", "wanted", type=click.Choice(["FAILED", "BOUNCED"]), default="FAILED", show_default=True)
@click.option("--reason", default="", help="Only rows whose error_message contains this.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=10_000, show_default=True)
@click.option("--yes", is_flag=True, help="Do it; without this the rows are only shown.")
def replay(wanted: str, reason: str, limit: int, yes: bool) -> None:
    """Make settled rows of the last 24 h PENDING again. Shows them first; --yes does it.

    Every device of a row is sent to again. Rows that wait for a retry are left alone.
    """
    rows = replaying.replayable(get_engine(), status=wanted, reason=reason, limit=limit)
    replayed = replaying.replay(get_engine(), [row["id"] for row in rows], wanted) if yes else 0
    lines: list[Line] = [_table(f"{len(rows)} {wanted} rows, the newest first", rows[:SHOWN], ("id", "why"))]
    lines += [f"{replayed} rows are PENDING again" if yes else "nothing was changed; add --yes to play them again"]
    emit({"found": len(rows), "replayed": replayed, "ids": [row["id"] for row in rows]}, lines)


def _table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Table:
    return Table(columns, [[row[column] for column in columns] for row in rows], title, empty="none")
