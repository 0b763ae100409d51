"""`chat-workers backups`: make, list, verify, restore, rotate and drill backups by hand."""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from shlex import quote
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from db.engine import get_engine
from db.models import CHAT_TABLES, DUMPED_TABLES
from db.needs import family_of
from settings import get_settings
from tasks import pause as pausing
from tasks.audit import who
from tasks.backups import folder, ledger, restore, rotate, verify
from tasks.backups.client import SHELLS, schema_engine
from tasks.backups.errors import BackupError
from tasks.backups.folder import Tick
from tasks.backups.ledger import Run
from tasks.backups.manifest import Manifest
from tasks.backups.run import TIERS, Backups
from tasks.backups.ship import Shipped
from tasks.backups.source import Source
from tasks.words import duration, moment, size
from workers.cli.group import Group, always, if_told
from workers.cli.output import Line, Table, as_json, emit, say
from workers.cli.progress import bytes_done


@click.group("backups", cls=Group, errors=(BackupError,))
def group() -> None:
    """Backups of the chat tables: make, list, verify, restore, rotate, drill."""


@group.command(changes=always)
@click.argument("tier", type=click.Choice(TIERS))
@click.option("--if-due", is_flag=True, help="Do nothing if this day, week or month has one, as the schedule does.")
def create(tier: str, if_due: bool) -> None:
    """Make a backup now: dump (daily), seal the week's dumps (weekly) or ship the newest archive to S3 (monthly)."""
    with bytes_done(f"{tier} backup", None) as tick:
        run = getattr(_backups(), tier)(tick, force=not if_due)
    rows = f", {run.rows:,} rows" if run.rows else ""
    made = f"{ledger.DID[run.job]} {run.artefact}: {size(run.bytes)}{rows}, {_took(run)}"
    emit(run, [made if run.artefact else f"nothing to do: the {tier} backup is not due"])
    _warn(run.ignored)


@group.command("list")
def list_command() -> None:
    """Show the backups of all tiers and when each job was last done. Exit 1 if one is not whole or cannot be seen."""
    backups, today = _backups(), datetime.now(UTC).date()
    into, rows, complaints, last = backups.folder, list[dict[str, Any]](), list[str](), dict[str, datetime | None]()
    proved: Run | None = None
    there: list[Shipped] | None = None
    for kind in folder.NAMES:
        complaints += folder.ahead(into, kind, today)
        for name in folder.names(into, kind):
            try:
                made, _, signature = folder.load(into, name).signed
                whole = {"tier": kind, "name": name, "bytes": made.bytes, "rows": made.rows, "made_at": made.created_at}
                rows.append({**whole, "signed": signature is not None})
            except BackupError as error:
                complaints.append(str(error))
    try:
        if backups.settings.backup_s3_uri:
            there = backups.bucket.shipped()
            counted, ignored = rotate.fitting(there, today)
            rows += [{"tier": f"S3 {each.tier}", "name": str(each), "bytes": each.bytes, "signed": True} for each in counted]
            complaints += ignored
    except BackupError as error:
        complaints.append(str(error))
    try:
        complaints += ledger.ahead(backups.engine)
        if there is not None and (gone := backups.missing(there)):
            complaints.append(gone)
        proved = ledger.last_drill(backups.engine)
        last = {" ".join(filter(None, job)): run.done for job, run in sorted(ledger.last_runs(backups.engine).items())}
    except DBAPIError as error:  # the day that backups are needed
        complaints.append(f"the database cannot tell when each job was last done: {error.orig}")
    empty = "" if complaints else "there are no backups yet; make one with: chat-workers backups create daily"
    if empty and backups.settings.backup_s3_uri and not backups.settings.backup_s3_lock_days:
        empty += ". What someone deleted from a bucket with object lock is seen only with BACKUP_S3_LOCK_DAYS"
    found = {"backups": rows, "last_done": last, "proved": proved and asdict(proved), "complaints": complaints}
    emit(found, _list(rows, last, proved, empty))
    if complaints:
        say(*(f"Error: {complaint}" for complaint in complaints), err=True)
        raise SystemExit(1)


def _list(rows: list[dict[str, Any]], last: dict[str, datetime | None], proved: Run | None, empty: str) -> Iterator[Line]:
    shown = []
    for row in rows:
        count, made = row.get("rows"), row.get("made_at")
        name = row["name"] if row["signed"] else f"{row['name']} (not signed)"
        shown.append((name, size(row["bytes"]), f"{count:,}" if count else "-", f"{made:%Y-%m-%d %H:%M}Z" if made else "-"))
    yield Table(("name", "size", "rows", "made at"), shown, empty=empty)
    yield Table(("job", "last done"), [(job, done or "never, though tried") for job, done in last.items()])
    if proved:
        yield _proved(proved)


@group.command()
@click.argument("name")
def show(name: str) -> None:
    """Show what a backup holds, and where the server's binary logs go on from it."""
    found, known = _backups().find(name), _backups().known_passphrases
    made = (found[0].manifest(found[1], known)[0] if isinstance(found, tuple) else found.signed).manifest
    emit(made.model_dump(mode="json"), _shown(made))


def _shown(made: Manifest) -> Iterator[Line]:
    yield f"{made.name}: {size(made.bytes)}, made at {moment(made.created_at)} of {made.database} by {made.client or 'us'}"
    yield Table(("table", "rows"), [(table, f"{seen.rows:,}") for table, seen in made.tables.items()])
    yield from [member.name for member in made.members]
    if made.binlog or not made.members:  # of an archive, its newest dump's; those of earlier versions do not say
        yield from _goes_on(made, datetime.now(UTC), f"{made.database}_restored")


@group.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify_command(names: tuple[str, ...]) -> None:
    """Read backups of the folder to their last byte and compare them with their manifests: all, or those named."""
    backups = _backups()
    into, known, report = backups.folder, backups.known_passphrases, dict[str, str | None]()
    for name in names or [name for kind in folder.NAMES for name in folder.names(into, kind)]:
        report[name] = None
        try:
            backup = folder.load(into, name)
            with bytes_done(name, 2 * backup.signed.manifest.bytes) as tick:
                verify.check_content(backup, known, tick)
        except BackupError as error:
            report[name] = str(error)
        if not as_json():
            say(f"{name}: {report[name] or 'as its manifest says'}")
    emit(report, [], wrong=any(report.values()))


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
def restore_command(
    name: str, into: str | None, tables: str | None, dump_name: str | None, triggers: bool, push: bool, yes: bool
) -> None:
    """Restore a dump, an archive or an archive in S3 (MONTH/NAME), in place of the tables of the same names.

    Into the chat's own schema it pauses pushes, scans and retention until it is done. Notifications keep the results
    that they have now. It may be stopped: the same command goes on behind the tables that are done.
    """
    chosen = tuple(table.strip() for table in tables.split(",")) if tables else DUMPED_TABLES
    if unknown := [table for table in chosen if table not in DUMPED_TABLES]:
        raise click.UsageError(f"no backup has a table {', '.join(unknown)}; there are {', '.join(DUMPED_TABLES)}")
    backups, began = _backups(), datetime.now(UTC)
    found = backups.find(name)
    schema = into or str(backups.engine.url.database)
    live = schema == backups.engine.url.database
    restore.create_schema(backups.engine.url, schema)
    target = click.get_current_context().with_resource(schema_engine(backups.engine.url, schema))
    filled = restore.filled_tables(target, DUMPED_TABLES)
    own = [] if tables else [table for table in filled if table not in CHAT_TABLES]
    fate = {table: "is replaced" if table in filled else "is made" for table in chosen} | dict.fromkeys(own, "keeps its own")
    chosen = tuple(table for table in chosen if table not in own)
    say(*_planned(found, dump_name, f"{schema} on {target.url.host}", fate, backups), err=True)
    if "is replaced" in fate.values() and not yes:
        if live:
            say("Stop the API and beat first; pushes, scans and retention are paused by the restore itself.", err=True)
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to be asked; --yes replaces these tables")
        click.confirm("Replace them?", abort=True, err=True)
    made: list[Manifest] = []
    try:
        with ExitStack() as bars:

            def loading(manifest: Manifest) -> Tick:
                made.append(manifest)
                bars.close()
                return bars.enter_context(bytes_done(f"restoring into {schema}", manifest.bytes))

            tick = bars.enter_context(bytes_done("reading the backup", None))
            pause = pausing.held(target, who(), f"the restore of {name}") if live else None
            run = backups.restore(
                found, target, chosen, tick, name=dump_name, triggers=triggers, push=push, pause=pause, loading=loading
            )
    except (BackupError, KeyboardInterrupt):
        with suppress(DBAPIError):
            if live and pausing.RESTORE in pausing.paused(target):
                say(
                    "Pushes, scans and retention stay paused until it is run again and done, or until:"
                    " chat-workers notifications resume",
                    err=True,
                )
        raise
    from db.migrate import has_tables  # with Alembic, which takes a while to load

    orphans, ready = restore.orphans(target, chosen), has_tables(target)
    result = {**asdict(run), "into": schema, "tables": chosen, "orphans": orphans}
    done = f"restored {run.artefact} into {schema}: {run.rows:,} rows, {_took(run)}"
    emit(result, [done, "Left to do:", *_left_to_do(made[0], orphans, began, schema, live=live, ready=ready)])
    _warn(run.ignored)


def _planned(found: Source, dump_name: str | None, where: str, fate: dict[str, str], backups: Backups) -> Iterator[Line]:
    """Return what a restore will do, to what, and how long that may take by the last drill: at most, of an archive of many."""
    whole = found[1] if isinstance(found, tuple) else found.signed.manifest
    made = whole if isinstance(whole, Manifest) else None
    since = moment(made.created_at) if made and made.kind == "daily" else folder.day_of(dump_name or whole.name)
    yield f"To restore: {whole.name}, {size(whole.bytes)}, of {since}"
    yield f"Into: {where}"
    rows = {table: f"{seen.rows:,}" for table, seen in made.tables.items()} if made else {}
    rows = rows or dict.fromkeys(fate, "?")  # of an archive
    yield Table(("table", "rows", "there"), [(table, rows[table], fate[table]) for table in fate if table in rows])
    with suppress(DBAPIError):  # the day that backups are needed
        if drill := ledger.last_drill(backups.engine):
            seconds = drill.restore_milliseconds / 1000 * whole.bytes / max(drill.bytes, 1)
            yield f"It takes about {duration(seconds)}: the drill of {drill.artefact} restored {drill.pace}."
    if "keeps its own" in fate.values():
        yield "What keeps its own may know more files to be bad; --tables replaces it."
    if "is replaced" in fate.values():
        yield f"What was written to the tables that are replaced since {since} is lost."


def _proved(drill: Run) -> str:
    newest = f"the newest was made at {moment(drill.newest_row_at)}" if drill.newest_row_at else "it has no message"
    return f"{drill.artefact} ({drill.tier}) restores: {drill.rows:,} rows came back as they were, {drill.pace}; {newest}"


def _left_to_do(
    made: Manifest, orphans: list[restore.Orphans], began: datetime, schema: str, *, live: bool, ready: bool
) -> Iterator[str]:
    if orphans:
        parents = ", ".join(sorted({key.parent for key in orphans}))
        keys = ", ".join(f"{key.column} ({'all' if key.count is None else f'{key.count:,} rows'})" for key in orphans)
        yield (
            f"- Bring back {parents} from their owner's backup of the dump's moment. Until then rows that name a missing one"
            f" can be read, but a write to them fails with error 1452: {keys}"
        )
    if not ready:
        yield "- Make the workers' tables: chat-workers db migrate"
    place, *variables = _goes_on(made, began, schema)
    yield f"- Its rows are those of {moment(made.created_at)}. {place}"
    yield from variables
    if live:
        yield "- Look whether all is well: chat-workers doctor. Then start beat, and half a minute later the API."
        yield "- Make a dump of this: chat-workers backups create daily"
    else:
        yield "- Look at it; without --into the same command restores the live schema."


def _goes_on(made: Manifest, stop: datetime, database: str) -> Iterator[str]:
    """Return the variables of docs/backups.md, to be pasted into a shell, whoever wrote them: no signature is checked."""
    if made.binlog is None or not re.fullmatch(r"[\w.][\w.-]*", made.binlog.file):  # options would stand among the files
        yield "It notes no place in the server's binary log, from which to go on."
        return
    yield "To go on from it to a given second see docs/backups.md, To the second:"
    yield f"BINLOGS={made.binlog.file}  # and those behind it, in quotes"
    yield f"POSITION={made.binlog.position}"
    yield f"STOP='{stop:%Y-%m-%d %H:%M:%S}'  # UTC; or an earlier one"
    yield "PARENTS='users shipments bids'  # if they are there as they were at the dump, else ''"
    yield f"FROM={quote(made.database)}"
    yield f"DATABASE={quote(database)}"
    yield f"CLIENT='{SHELLS[family_of(made.server)][0]} --defaults-extra-file=my.cnf'  # an administrator's"


@group.command(changes=if_told)
@click.option("--yes", is_flag=True, help="Delete; without it the command only shows what it would delete.")
def prune(yes: bool) -> None:
    """Show what rotation would delete by BACKUP_KEEP_DAILY, _WEEKLY and _MONTHLY; with --yes, delete it."""
    with bytes_done("verifying what is kept", None) as tick:
        plans = _backups().prune(tick, delete=yes)
    ignored = [sentence for plan in plans.values() for sentence in plan.ignored]
    expired = {tier: plan.backups for tier, plan in plans.items()}
    verb = "deleted" if yes else "would delete"
    lines = [f"{verb} {tier} {entry} ({size(entry.bytes)})" for tier, entries in expired.items() for entry in entries]
    if not lines:
        lines = ["nothing is past its keep"]
    elif not yes:
        lines.append("nothing was deleted; --yes does it, once the newest of each tier has been verified")
    emit({"deleted": yes, **expired, "ignored": ignored}, lines)
    _warn(ignored)


@group.command(changes=always)
@click.option("--from", "tier", type=click.Choice(TIERS), help="Default: the tier not drilled for longest.")
def drill(tier: str | None) -> None:
    """Restore the newest backup of a tier into the scratch schema, compare every row, and drop the schema."""
    with bytes_done("drill", None) as tick:
        run = _backups().drill(tick, tier=tier)
    emit(run, [_proved(run), f"It took {_took(run)}, and dropped the schema."])


def _backups() -> Backups:
    return Backups(get_engine(), get_settings())


def _warn(ignored: list[str]) -> None:
    say(*(f"Warning: {sentence}" for sentence in ignored), err=True)


def _took(run: Run) -> str:
    return duration(run.milliseconds / 1000)
