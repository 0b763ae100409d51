"""`chat-workers attachments`: what the virus scans have found, another scan, a release, and whether clamd can be believed."""

import getpass
import json
from typing import Any

import click

from db.engine import get_engine
from settings import get_settings
from tasks.attachments import operations, scannable
from tasks.attachments.clamd import Clamd, ClamdUnavailableError
from tasks.attachments.quarantine import open_quarantine
from tasks.attachments.storage import open_storage
from tasks.attachments.storage.base import ChangedError, MissingError, RefusedError, StorageUnavailableError
from tasks.attachments.verdicts import WORDS

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("attachments")
def group() -> None:
    """Virus scans: status, list, show, rescan, release, check."""


@group.command()
@as_json
def status(as_json: bool) -> None:
    """Count attachments by verdict, and say what is due."""
    found = operations.status(get_engine())
    if as_json:
        click.echo(json.dumps(found))
        return
    for verdict in WORDS:
        click.echo(f"{verdict:<12} {found['verdicts'].get(verdict, 0):>9}")
    for lane, due in found["due"].items():
        oldest = f", the oldest for {due['oldest_seconds']} s" if due["attachments"] else ""
        click.echo(f"due now      {due['attachments']:>9}  {lane}{oldest}")


@group.command("list")
@click.argument("verdict", type=click.Choice(WORDS), default="infected")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@as_json
def list_command(verdict: str, limit: int, as_json: bool) -> None:
    """List the newest attachments with a VERDICT, infected ones if none is named."""
    found = operations.of_verdict(get_engine(), verdict, limit)
    if as_json:
        click.echo(json.dumps(found))
        return
    for row in found:
        what, name = _safe(row["signature"] or row["reason"]), _safe(row["file_name"])
        click.echo(f"{row['id']:>9}  {row['scanned_at'] or '-':<26}  {what}  {name}")
    if not found:
        click.echo(f"no attachment is {verdict}")


@group.command()
@click.argument("attachment_id", type=int)
@as_json
def show(attachment_id: int, as_json: bool) -> None:
    """Show an attachment's row, the record of its scans, and its history."""
    try:
        found = operations.show(get_engine(), attachment_id)
    except operations.NotPossibleError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(found))
        return
    for part in ("attachment", "scan"):
        for key, value in (found[part] or {f"no {part}": ""}).items():
            if value not in (None, ""):
                click.echo(f"{key:<18} {_safe(value)}")
        click.echo()
    for event in found["events"]:
        click.echo(f"{event['happened_at']}  {event['event']}  {_safe(event['reason'])}")


@group.command()
@click.argument("attachment_ids", type=int, nargs=-1)
@click.option("--verdict", type=click.Choice(WORDS), help="All attachments with this verdict, behind the uploads.")
@as_json
def rescan(attachment_ids: tuple[int, ...], verdict: str | None, as_json: bool) -> None:
    """Have attachments scanned again by the next sweep, even if their bytes are known."""
    if bool(attachment_ids) == bool(verdict):
        raise click.UsageError("name attachments by their ids, or a --verdict")
    engine = get_engine()
    count = operations.rescan_verdict(engine, verdict) if verdict else operations.rescan(engine, list(attachment_ids))
    click.echo(json.dumps({"due": count}) if as_json else f"{count} will be scanned by the next sweep")
    if attachment_ids and count < len(set(attachment_ids)):
        raise click.ClickException(f"{len(set(attachment_ids)) - count} of them do not exist")


@group.command()
@click.argument("attachment_id", type=int)
@click.option("--reason", required=True, help="Why these bytes are harmless; it is kept.")
@click.option("--by", default=getpass.getuser, help="Who answers for it; your login name if not given.")
@as_json
def release(attachment_id: int, reason: str, by: str, as_json: bool) -> None:
    """Serve an attachment whatever clamd says: a false alarm, or an archive that may stay encrypted.

    It is for exactly these bytes, wherever they are uploaded. What lies in quarantine is put back; the next sweep serves it.
    """
    settings = get_settings()
    try:
        done = operations.release(
            get_engine(), open_storage(settings), open_quarantine(settings), attachment_id, who=by[:100], why=reason[:255]
        )
    except (operations.NotPossibleError, MissingError, RefusedError, StorageUnavailableError) as error:
        raise click.ClickException(str(error)) from None
    except ChangedError:
        raise click.ClickException("what lies in quarantine is not what was put there; nothing was released") from None
    restored = ", put back from quarantine," if done["restored"] else ""
    click.echo(json.dumps(done) if as_json else f"attachment {attachment_id}{restored} is served after the next sweep")


@group.command()
@as_json
def check(as_json: bool) -> None:
    """Say whether clamd's OK can be believed, by files that it must not call OK. Exit 1 if it cannot, or does not answer."""
    settings = get_settings()
    clamd = Clamd(settings.clamd_url, scan_seconds=settings.clamd_scan_seconds)
    try:
        version = clamd.version()
        faults = scannable.faults(clamd, settings.attachments_largest_bytes)
    except ClamdUnavailableError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        faulty = [{"sentence": fault.sentence, "fatal": fault.fatal} for fault in faults]
        click.echo(json.dumps({"engine": version.engine, "database_version": version.database, "faults": faulty}))
    else:
        click.echo(f"ClamAV {version.engine}, signatures {version.database or 'without a version'}")
        for fault in faults:
            click.echo(f"{'nothing is scanned' if fault.fatal else 'warning'}: {fault.sentence}")
        if not faults:
            click.echo("clamd looks into everything that it calls OK")
    if any(fault.fatal for fault in faults):
        raise SystemExit(1)


def _safe(value: Any) -> str:
    """Return a text of strangers in a form that does nothing to a terminal: no control signs, no change of direction."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(value if value is not None else ""))
