"""`chat-workers backups`: make, list, verify, restore, rotate and drill backups by hand."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from sqlalchemy.exc import DBAPIError

from db.engine import get_engine
from db.models import CHAT_TABLES
from settings import get_settings
from tasks.backups import folder, ledger, months, restore, verify
from tasks.backups.errors import BackupError
from tasks.backups.run import TIERS, Backups

json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
MADE = {"daily": "dumped", "weekly": "sealed", "monthly": "shipped"}


@click.group("backups")
def group() -> None:
    """Backups of the chat tables: make, list, verify, restore, rotate, drill."""


@group.command()
@click.argument("tier", type=click.Choice(TIERS))
@click.option("--if-due", is_flag=True, help="Do nothing if this day, week or month has one, as the schedule does.")
@json_option
def create(tier: str, if_due: bool, as_json: bool) -> None:
    """Make a backup now: dump (daily), seal the week's dumps (weekly) or ship the newest archive to S3 (monthly)."""
    work = {"daily": Backups.daily, "weekly": Backups.weekly, "monthly": Backups.monthly}[tier]
    with _sentences(), _progress(f"{tier} backup", _expected(tier)) as tick:
        run = work(_backups(), tick, force=not if_due)
    if as_json:
        _print_json(asdict(run))
    elif run.artefact:
        rows = f", {run.rows:,} rows" if run.rows else ""
        click.echo(f"{MADE[tier]} {run.artefact}: {_size(run.bytes)}{rows}, {run.milliseconds / 1000:.1f} s")
    else:
        click.echo(f"nothing to do: the {tier} backup is not due")
    _warn(run.ignored)


@group.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Show the backups of all tiers and when each job was last done. Exit 1 if one is not whole or cannot be seen."""
    backups = _backups()
    rows, complaints = [], []
    today = datetime.now(UTC).date()
    with _sentences():
        into = backups.folder
        for kind in folder.NAMES:
            complaints += folder.ahead(into, kind, today)
            for name in folder.names(into, kind):
                try:
                    manifest, _, signature = folder.load(into, name).signed
                    made = manifest.created_at.isoformat()
                    rows.append(_row(kind, name, manifest.bytes, made, manifest.rows, signature is not None))
                except BackupError as error:
                    complaints.append(str(error))
        try:
            if bucket := backups.bucket:
                counted, ignored = months.fitting(bucket.shipped(), today)
                rows += [_row("monthly", str(entry), entry.bytes, "", 0, True) for entry in counted]
                complaints += ignored
        except BackupError as error:
            complaints.append(str(error))
        try:
            runs = ledger.last_runs(backups.engine)
        except DBAPIError as error:  # the day that backups are needed
            runs = {}
            complaints.append(f"the database cannot tell when each job was last done: {error.orig}")
    last = {
        " ".join(filter(None, key)): None if run.done is None else f"{run.done:%Y-%m-%dT%H:%M:%SZ}" for key, run in runs.items()
    }
    if as_json:
        _print_json({"backups": rows, "last_done": last, "complaints": complaints})
    else:
        for row in rows:
            count = f"{row['rows']:>14,} rows" if row["rows"] else " " * 19
            signed = "signed" if row["signed"] else "not signed"
            click.echo(
                f"{row['tier']:8} {row['name']:48} {_size(row['bytes']):>10} {count}  {row['made_at']:26} {signed}".rstrip()
            )
        for job, done in sorted(last.items()):
            click.echo(f"last {job}: {done or 'never done, though tried'}")
        for complaint in complaints:
            click.echo(f"Error: {complaint}", err=True)
        if not rows and not complaints:
            click.echo("there are no backups yet; make one with: chat-workers backups create daily")
    if complaints:
        raise SystemExit(1)


@group.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def verify_command(names: tuple[str, ...], as_json: bool) -> None:
    """Read backups of the folder to their last byte and compare them with their manifests: all, or those named."""
    backups = _backups()
    report: dict[str, str | None] = {}
    with _sentences():
        into, known = backups.folder, backups.known_passphrases
        chosen = names or [name for kind in folder.NAMES for name in folder.names(into, kind)]
        for name in chosen:
            try:
                backup = folder.load(into, name)
                with _progress(name, 2 * backup.signed.manifest.bytes) as tick:
                    verify.check_content(backup, known, tick)
                report[name] = None
            except BackupError as error:
                report[name] = str(error)
            if not as_json:
                click.echo(f"{name}: {report[name] or 'as its manifest says'}")
    if as_json:
        _print_json(report)
    if any(report.values()):
        raise SystemExit(1)


@group.command("restore")
@click.argument("name")
@click.option(
    "--into", metavar="DATABASE", help="The schema to restore into; made if it is not there. Default: the chat's own."
)
@click.option("--tables", metavar="A,B", help="Only these tables. Default: all nine.")
@click.option("--dump", "dump_name", metavar="NAME", help="Which dump of an archive. Default: its newest.")
@click.option("--yes", is_flag=True, help="Replace tables that have rows without asking.")
@json_option
def restore_command(name: str, into: str | None, tables: str | None, dump_name: str | None, yes: bool, as_json: bool) -> None:
    """Restore a dump, an archive or an archive in S3 (MONTH/NAME), in place of the tables of the same names."""
    chosen = tuple(table.strip() for table in tables.split(",")) if tables else CHAT_TABLES
    if unknown := [table for table in chosen if table not in CHAT_TABLES]:
        raise click.UsageError(f"no backup has a table {', '.join(unknown)}; there are {', '.join(CHAT_TABLES)}")
    backups = _backups()
    with _sentences():
        found = backups.find(name)
        schema = into or str(backups.engine.url.database)
        restore.create_schema(backups.engine, schema)
        target = restore.schema_engine(backups.engine, schema)
        if filled := restore.filled_tables(target, chosen):
            click.echo(
                f"{schema} has rows in {', '.join(filled)}; the restore drops these tables and makes them anew.", err=True
            )
            if not yes:
                click.echo(restore.NEEDS, err=True)
                _ask()
        with _progress(f"restoring into {schema}", None) as tick:
            run = backups.restore(found, target, chosen, tick, name=dump_name)
        orphans = restore.orphans(target, chosen)
        target.dispose()
    if as_json:
        _print_json({**asdict(run), "into": schema, "tables": chosen, "orphans": [asdict(entry) for entry in orphans]})
        return
    click.echo(f"restored {run.artefact} into {schema}: {run.rows:,} rows, {run.milliseconds / 1000:.1f} s")
    if orphans:
        click.echo(restore.NEEDS)
    for entry in orphans:
        missing = "which is not there" if entry.count is None else f"where {entry.count:,} rows name one that is not there"
        click.echo(f"  {entry.column} refers to {entry.parent}, {missing}")


@group.command()
@click.option("--yes", is_flag=True, help="Delete; without it the command only shows what it would delete.")
@json_option
def prune(yes: bool, as_json: bool) -> None:
    """Show what rotation would delete by BACKUP_KEEP_DAILY, _WEEKLY and _MONTHLY; with --yes, delete it."""
    with _sentences(), _progress("verifying what is kept", None) as tick:
        plans = _backups().prune(tick) if yes else _backups().plan(tick)
    ignored = [sentence for plan in plans.values() for sentence in plan.ignored]
    if as_json:
        expired = {tier: [asdict(entry) for entry in plan.expired] for tier, plan in plans.items()}
        _print_json({"deleted": yes, **expired, "ignored": ignored})
        return
    verb = "deleted" if yes else "would delete"
    for tier, plan in plans.items():
        for entry in plan.expired:
            click.echo(f"{verb} {tier} {entry} ({_size(entry.bytes)})")
    _warn(ignored)
    if not any(plan.expired for plan in plans.values()):
        click.echo("nothing is past its keep")
    elif not yes:
        click.echo("nothing was deleted; --yes does it, once the newest of each tier has been verified")


@group.command()
@click.option("--from", "tier", type=click.Choice(TIERS), help="Default: the tier not drilled for longest.")
@json_option
def drill(tier: str | None, as_json: bool) -> None:
    """Restore the newest backup of a tier into the scratch schema, compare every row, and drop the schema."""
    with _sentences(), _progress("drill", None) as tick:
        run = _backups().drill(tick, tier=tier)
    if as_json:
        _print_json(asdict(run))
    else:
        seconds = run.milliseconds / 1000
        click.echo(f"{run.artefact} ({run.tier}) restores: {run.rows:,} rows came back as they were, in {seconds:.1f} s")


def _backups() -> Backups:
    return Backups(get_engine(), get_settings())


def _warn(ignored: list[str]) -> None:
    for sentence in ignored:
        click.echo(f"Warning: {sentence}", err=True)


def _ask() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to be asked; --yes replaces these tables")
    click.confirm("Replace them?", abort=True, err=True)


def _expected(tier: str) -> int | None:
    """Return about how many bytes a run will go through, None where nothing tells."""
    last = folder.newest(_backups().folder, "daily" if tier == "daily" else "weekly")
    if last is None or tier == "weekly":
        return None
    return last.signed.manifest.plain_bytes if tier == "daily" else 2 * last.signed.manifest.bytes


@contextmanager
def _progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal; elsewhere nothing."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except BackupError as error:
        raise click.ClickException(str(error)) from None
    except DBAPIError as error:
        raise click.ClickException(f"the database failed: {error.orig}") from None


def _row(tier: str, name: str, size: int, made: str, rows: int, signed: bool) -> dict[str, Any]:
    return {"tier": tier, "name": name, "bytes": size, "made_at": made, "rows": rows, "signed": signed}


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} B"


def _print_json(report: object) -> None:
    click.echo(json.dumps(report))
