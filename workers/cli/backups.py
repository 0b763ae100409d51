"""`chat-workers backups`: make, list, verify, restore, rotate and drill backups by hand."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime

import click
from sqlalchemy.exc import DBAPIError

from db.engine import get_engine
from db.models import CHAT_TABLES, DUMPED_TABLES
from settings import get_settings
from tasks import pause as pausing
from tasks.audit import who
from tasks.backups import folder, ledger, months, restore, verify
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup
from tasks.backups.ledger import Run
from tasks.backups.manifest import Manifest
from tasks.backups.run import TIERS, Backups
from tasks.backups.source import Source
from tasks.words import duration, moment, size
from workers.cli.group import Group, always, if_told
from workers.cli.output import Line, Table, as_json_option, emit, say
from workers.cli.progress import bytes_done

Listed = tuple[str, str, int, int | None, datetime | None, bool]
"""Tier, name, bytes, rows, when it was made, whether it is signed."""


@click.group("backups", cls=Group, errors=(BackupError,))
def group() -> None:
    """Backups of the chat tables: make, list, verify, restore, rotate, drill."""


@group.command(changes=always)
@click.argument("tier", type=click.Choice(TIERS))
@click.option("--if-due", is_flag=True, help="Do nothing if this day, week or month has one, as the schedule does.")
@as_json_option
def create(tier: str, if_due: bool, as_json: bool) -> None:
    """Make a backup now: dump (daily), seal the week's dumps (weekly) or ship the newest archive to S3 (monthly)."""
    with bytes_done(f"{tier} backup", None) as tick:
        run = getattr(_backups(), tier)(tick, force=not if_due)
    rows = f", {run.rows:,} rows" if run.rows else ""
    made = f"{ledger.DID[run.job]} {run.artefact}: {size(run.bytes)}{rows}, {_took(run)}"
    emit(run, as_json, [made if run.artefact else f"nothing to do: the {tier} backup is not due"])
    _warn(run.ignored)


@group.command("list")
@as_json_option
def list_command(as_json: bool) -> None:
    """Show the backups of all tiers and when each job was last done. Exit 1 if one is not whole or cannot be seen."""
    backups, today = _backups(), datetime.now(UTC).date()
    into, rows, complaints, last = backups.folder, list[Listed](), list[str](), dict[str, datetime | None]()
    for kind in folder.NAMES:
        complaints += folder.ahead(into, kind, today)
        for name in folder.names(into, kind):
            try:
                manifest, _, signature = folder.load(into, name).signed
                rows.append((kind, name, manifest.bytes, manifest.rows, manifest.created_at, signature is not None))
            except BackupError as error:
                complaints.append(str(error))
    try:
        if bucket := backups.bucket:
            counted, ignored = months.fitting(bucket.shipped(), today)
            rows += [(f"S3 {entry.tier}", str(entry), entry.bytes, None, None, True) for entry in counted]
            complaints += ignored
    except BackupError as error:
        complaints.append(str(error))
    try:
        complaints += ledger.ahead(backups.engine)
        last = {" ".join(filter(None, job)): run.done for job, run in sorted(ledger.last_runs(backups.engine).items())}
    except DBAPIError as error:  # the day that backups are needed
        complaints.append(f"the database cannot tell when each job was last done: {error.orig}")
    listed = [dict(zip(("tier", "name", "bytes", "rows", "made_at", "signed"), row, strict=True)) for row in rows]
    empty = "" if complaints else "there are no backups yet; make one with: chat-workers backups create daily"
    emit({"backups": listed, "last_done": last, "complaints": complaints}, as_json, _list(rows, last, empty))
    if complaints:
        say(*(f"Error: {complaint}" for complaint in complaints), err=True)
        raise SystemExit(1)


def _list(rows: list[Listed], last: dict[str, datetime | None], empty: str) -> Iterator[Line]:
    shown = [
        (tier, name, size(length), f"{count:,}" if count else "-", made or "-", "signed" if signed else "not signed")
        for tier, name, length, count, made, signed in rows
    ]
    yield Table(("tier", "name", "size", "rows", "made at", ""), shown, empty=empty)
    yield Table(("job", "last done"), [(job, done or "never, though tried") for job, done in last.items()])


@group.command()
@click.argument("name")
@as_json_option
def show(name: str, as_json: bool) -> None:
    """Show what a backup of the folder holds, and where the server's binary logs go on from it."""
    made = folder.load(_backups().folder, name).signed.manifest
    emit(made.model_dump(mode="json"), as_json, _shown(made))


def _shown(made: Manifest) -> Iterator[Line]:
    yield f"{made.name}: {size(made.bytes)}, made at {moment(made.created_at)} of {made.database} by {made.client or 'us'}"
    yield Table(("table", "rows"), [(table, f"{seen.rows:,}") for table, seen in made.tables.items()])
    yield from (member.name for member in made.members)
    if made.binlog:
        yield "To go on from it to a given second, with these in the blocks of docs/backups.md, To the second:"
        yield f'BINLOGS="{made.binlog.file} …" POSITION={made.binlog.position} FROM={made.database}'
        yield f"(GTID {made.binlog.gtid or 'not in use'})"


@group.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@as_json_option
def verify_command(names: tuple[str, ...], as_json: bool) -> None:
    """Read backups of the folder to their last byte and compare them with their manifests: all, or those named."""
    backups = _backups()
    report: dict[str, str | None] = {}

    def work() -> Iterator[Line]:
        into, known = backups.folder, backups.known_passphrases
        for name in names or [name for kind in folder.NAMES for name in folder.names(into, kind)]:
            try:
                backup = folder.load(into, name)
                with bytes_done(name, 2 * backup.signed.manifest.bytes) as tick:
                    verify.check_content(backup, known, tick)
                report[name] = None
            except BackupError as error:
                report[name] = str(error)
            yield f"{name}: {report[name] or 'as its manifest says'}"

    emit(report, as_json, list(work()) if as_json else work())
    if any(report.values()):
        raise SystemExit(1)


@group.command("restore", changes=always)
@click.argument("name")
@click.option(
    "--into", metavar="DATABASE", help="The schema to restore into; made if it is not there. Default: the chat's own."
)
@click.option("--tables", metavar="A,B", help="Only these tables. Default: all, but for records of scans that are there.")
@click.option("--dump", "dump_name", metavar="NAME", help="Which dump of an archive. Default: its newest.")
@click.option("--triggers/--no-triggers", default=True, help="Without: what this account may not make is left out.")
@click.option("--push", is_flag=True, help="Send what the dump has unsettled, though it may have been sent since.")
@click.option("--yes", is_flag=True, help="Replace tables that have rows without asking.")
@as_json_option
def restore_command(
    name: str,
    into: str | None,
    tables: str | None,
    dump_name: str | None,
    triggers: bool,
    push: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Restore a dump, an archive or an archive in S3 (MONTH/NAME), in place of the tables of the same names.

    Into the chat's own schema it pauses pushes and scans until it is done. Notifications keep the results that they have now.
    """
    chosen = tuple(table.strip() for table in tables.split(",")) if tables else DUMPED_TABLES
    if unknown := [table for table in chosen if table not in DUMPED_TABLES]:
        raise click.UsageError(f"no backup has a table {', '.join(unknown)}; there are {', '.join(DUMPED_TABLES)}")
    backups = _backups()
    found = backups.find(name)
    schema = into or str(backups.engine.url.database)
    restore.create_schema(backups.engine, schema)
    target = restore.schema_engine(backups.engine, schema)
    own = [] if tables else restore.filled_tables(target, [table for table in DUMPED_TABLES if table not in CHAT_TABLES])
    if own:
        say(f"{schema} keeps its own {', '.join(own)}: they may know more files to be bad; --tables replaces them.", err=True)
        chosen = tuple(table for table in chosen if table not in own)
    if filled := restore.filled_tables(target, chosen):
        say(f"{schema} has rows in {', '.join(filled)}; the restore drops these tables and makes them anew.", err=True)
        say(f"What was written to them since {_moment_of(found, dump_name)} is lost.", err=True)
        if not yes:
            say(restore.NEEDS, err=True)
            _ask()
    pause = pausing.held(target, who(), f"the restore of {name}") if schema == backups.engine.url.database else None
    with bytes_done(f"restoring into {schema}", None) as tick:
        run = backups.restore(found, target, chosen, tick, name=dump_name, triggers=triggers, push=push, pause=pause)
    orphans = restore.orphans(target, chosen)
    target.dispose()
    result = {**asdict(run), "into": schema, "tables": chosen, "orphans": orphans}
    emit(result, as_json, _restored(run, schema, orphans))
    _warn(run.ignored)


def _moment_of(found: Source, dump_name: str | None) -> datetime | date:
    """Return when the dump of a backup was made, as far as that can be told before it is unpacked."""
    if isinstance(found, Backup) and found.signed.manifest.kind == "daily":
        return found.signed.manifest.created_at
    return folder.day_of(dump_name or (found if isinstance(found, Backup) else found[1]).name)


def _restored(run: Run, schema: str, orphans: list[restore.Orphans]) -> Iterator[Line]:
    yield f"restored {run.artefact} into {schema}: {run.rows:,} rows, {_took(run)}"
    if orphans:
        yield restore.NEEDS
    for entry in orphans:
        missing = "which is not there" if entry.count is None else f"where {entry.count:,} rows name one that is not there"
        yield f"  {entry.column} refers to {entry.parent}, {missing}"


@group.command(changes=if_told)
@click.option("--yes", is_flag=True, help="Delete; without it the command only shows what it would delete.")
@as_json_option
def prune(yes: bool, as_json: bool) -> None:
    """Show what rotation would delete by BACKUP_KEEP_DAILY, _WEEKLY and _MONTHLY; with --yes, delete it."""
    with bytes_done("verifying what is kept", None) as tick:
        plans = _backups().prune(tick) if yes else _backups().plan(tick)
    ignored = [sentence for plan in plans.values() for sentence in plan.ignored]
    expired = {tier: plan.expired for tier, plan in plans.items()}
    verb = "deleted" if yes else "would delete"
    lines = [f"{verb} {tier} {entry} ({size(entry.bytes)})" for tier, entries in expired.items() for entry in entries]
    if not lines:
        lines = ["nothing is past its keep"]
    elif not yes:
        lines.append("nothing was deleted; --yes does it, once the newest of each tier has been verified")
    emit({"deleted": yes, **expired, "ignored": ignored}, as_json, lines)
    if not as_json:
        _warn(ignored)


@group.command(changes=always)
@click.option("--from", "tier", type=click.Choice(TIERS), help="Default: the tier not drilled for longest.")
@as_json_option
def drill(tier: str | None, as_json: bool) -> None:
    """Restore the newest backup of a tier into the scratch schema, compare every row, and drop the schema."""
    with bytes_done("drill", None) as tick:
        run = _backups().drill(tick, tier=tier)
    emit(run, as_json, [f"{run.artefact} ({run.tier}) restores: {run.rows:,} rows came back as they were, in {_took(run)}"])


def _backups() -> Backups:
    return Backups(get_engine(), get_settings())


def _warn(ignored: list[str]) -> None:
    say(*(f"Warning: {sentence}" for sentence in ignored), err=True)


def _ask() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to be asked; --yes replaces these tables")
    click.confirm("Replace them?", abort=True, err=True)


def _took(run: Run) -> str:
    return duration(run.milliseconds / 1000)
