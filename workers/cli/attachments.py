"""`chat-workers attachments`: list the verdicts of the virus scans, scan again, release a file, and check clamd."""

from collections.abc import Iterator
from typing import Any

import click

from db.engine import get_engine
from settings import get_settings
from tasks.attachments import operations, scannable
from tasks.attachments.clamd import Clamd, ClamdUnavailableError
from tasks.attachments.facts import TABLES
from tasks.attachments.operations import NotPossibleError
from tasks.attachments.quarantine import open_quarantine
from tasks.attachments.storage import open_storage
from tasks.attachments.storage.base import ChangedError, MissingError, RefusedError, StorageUnavailableError
from tasks.attachments.verdicts import WORDS
from workers.cli.group import Group
from workers.cli.output import Line, Table, as_json_option, emit
from workers.cli.progress import who
from workers.cli.status import job_status

ERRORS = (NotPossibleError, MissingError, RefusedError, StorageUnavailableError, ClamdUnavailableError)


@click.group("attachments", cls=Group, errors=ERRORS)
def group() -> None:
    """Virus scans: status, list, show, rescan, release, check."""


@group.command()
@as_json_option
def status(as_json: bool) -> None:
    """Count attachments by verdict, and say what is due."""
    job_status(TABLES, as_json)


@group.command("list")
@click.argument("verdict", type=click.Choice(WORDS), default="infected")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@as_json_option
def list_command(verdict: str, limit: int, as_json: bool) -> None:
    """List the newest attachments with a VERDICT, infected ones if none is named."""
    found = operations.of_verdict(get_engine(), verdict, limit)
    rows = [(row["id"], row["scanned_at"] or "-", row["signature"] or row["reason"], row["file_name"]) for row in found]
    emit(found, as_json, [Table(("id", "scanned at", "found", "file"), rows, empty=f"no attachment is {verdict}")])


@group.command()
@click.argument("attachment_id", type=int)
@as_json_option
def show(attachment_id: int, as_json: bool) -> None:
    """Show an attachment's row, the record of its scans, and its history."""
    found = operations.show(get_engine(), attachment_id)
    emit(found, as_json, _show(found))


def _show(found: dict[str, Any]) -> Iterator[Line]:
    for part in ("attachment", "scan"):
        rows = [(key, value) for key, value in (found[part] or {}).items() if value not in (None, "")]
        yield Table((part, ""), rows, empty=f"no {part}")
        yield ""
    yield Table(("at", "event", "reason"), [(each["happened_at"], each["event"], each["reason"]) for each in found["events"]])


@group.command()
@click.argument("attachment_ids", type=int, nargs=-1)
@click.option("--verdict", type=click.Choice(WORDS), help="All attachments with this verdict, behind the uploads.")
@as_json_option
def rescan(attachment_ids: tuple[int, ...], verdict: str | None, as_json: bool) -> None:
    """Have attachments scanned again by the next sweep, even if their bytes are known."""
    if bool(attachment_ids) == bool(verdict):
        raise click.UsageError("name attachments by their ids, or a --verdict")
    engine = get_engine()
    count = operations.rescan_verdict(engine, verdict) if verdict else operations.rescan(engine, list(attachment_ids))
    emit({"due": count}, as_json, [f"{count} will be scanned by the next sweep"])
    if attachment_ids and count < len(set(attachment_ids)):
        raise click.ClickException(f"{len(set(attachment_ids)) - count} of them do not exist")


@group.command()
@click.argument("attachment_id", type=int)
@click.option("--reason", required=True, help="Why these bytes are harmless; it is kept.")
@click.option("--by", default=who, help="Who answers for it; your login name and host if not given.")
@as_json_option
def release(attachment_id: int, reason: str, by: str, as_json: bool) -> None:
    """Serve an attachment whatever clamd says: a false alarm, or an archive that may stay encrypted.

    It is for exactly these bytes, wherever they are uploaded. What lies in quarantine is put back; the next sweep serves it.
    """
    settings = get_settings()
    try:
        done = operations.release(
            get_engine(), open_storage(settings), open_quarantine(settings), attachment_id, who=by[:100], why=reason[:255]
        )
    except ChangedError:
        raise click.ClickException("what lies in quarantine is not what was put there; nothing was released") from None
    restored = ", put back from quarantine," if done["restored"] else ""
    emit(done, as_json, [f"attachment {attachment_id}{restored} is served after the next sweep"])


@group.command()
@as_json_option
def check(as_json: bool) -> None:
    """Say whether clamd's OK can be believed, by files that it must not call OK. Exit 1 if it cannot, or does not answer."""
    settings = get_settings()
    clamd = Clamd(settings.clamd_url, scan_seconds=settings.clamd_scan_seconds)
    version = clamd.version()
    faults = scannable.faults(clamd, settings.attachments_largest_bytes)
    faulty = [{"sentence": fault.sentence, "fatal": fault.fatal} for fault in faults]
    said = [f"{'nothing is scanned' if fault.fatal else 'warning'}: {fault.sentence}" for fault in faults]
    emit(
        {"engine": version.engine, "database_version": version.database, "faults": faulty},
        as_json,
        [
            f"ClamAV {version.engine}, signatures {version.database or 'without a version'}",
            *(said or ["clamd looks into everything that it calls OK"]),
        ],
    )
    if any(fault.fatal for fault in faults):
        raise SystemExit(1)
