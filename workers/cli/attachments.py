"""`chat-workers attachments`: list the verdicts of the virus scans, scan again, release a file, and check clamd."""

from collections.abc import Iterator
from datetime import timedelta
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
from tasks.audit import who
from tasks.pause import SCANS
from workers.cli import pauses
from workers.cli.group import Group, always
from workers.cli.output import Line, Table, emit
from workers.cli.pauses import pause_options
from workers.cli.status import job_status

ERRORS = (NotPossibleError, MissingError, RefusedError, StorageUnavailableError, ClamdUnavailableError)


@click.group("attachments", cls=Group, errors=ERRORS)
def group() -> None:
    """Virus scans: status, list, show, pause, resume, rescan, release, history, check."""


@group.command()
def status() -> None:
    """Count attachments by verdict, and say what is due."""
    job_status(TABLES)


@group.command("list")
@click.argument("verdict", type=click.Choice(WORDS), default="infected")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
def list_command(verdict: str, limit: int) -> None:
    """List the newest attachments with a VERDICT, infected ones if none is named."""
    found = operations.of_verdict(get_engine(), verdict, limit)
    rows = [(row["id"], row["scanned_at"] or "-", row["signature"] or row["reason"], row["file_name"]) for row in found]
    emit(found, [Table(("id", "scanned at", "found", "file"), rows, empty=f"no attachment is {verdict}")])


@group.command()
@click.argument("attachment_id", type=int)
def show(attachment_id: int) -> None:
    """Show an attachment's row, the record of its scans, and its history."""
    found = operations.show(get_engine(), attachment_id)
    emit(found, _show(found))


def _show(found: dict[str, Any]) -> Iterator[Line]:
    for part in ("attachment", "scan"):
        rows = [(key, value) for key, value in (found[part] or {}).items() if value not in (None, "")]
        yield Table((part, ""), rows, empty=f"no {part}")
        yield ""
    yield Table(("at", "event", "reason"), [(each["happened_at"], each["event"], each["reason"]) for each in found["events"]])


@group.command(changes=always)
@pause_options
def pause(lasting: timedelta | None, why: str) -> None:
    """Begin no scan from within a second on, fleet-wide and also after restarts. What is not scanned is not served."""
    pauses.pause([SCANS], lasting, why, "attachments resume")


@group.command(changes=always)
def resume() -> None:
    """Take the pause back; the next sweep scans what has waited."""
    pauses.resume([SCANS])


@group.command(changes=always)
@click.argument("attachment_ids", type=int, nargs=-1)
@click.option("--verdict", type=click.Choice(WORDS), help="All attachments with this verdict, behind the uploads.")
def rescan(attachment_ids: tuple[int, ...], verdict: str | None) -> None:
    """Have attachments scanned again by the next sweep, even if their bytes are known."""
    if bool(attachment_ids) == bool(verdict):
        raise click.UsageError("name attachments by their ids, or a --verdict")
    engine = get_engine()
    count = operations.rescan_verdict(engine, verdict) if verdict else operations.rescan(engine, list(attachment_ids))
    emit({"due": count}, [f"{count} will be scanned by the next sweep"])
    if attachment_ids and count < len(set(attachment_ids)):
        raise click.ClickException(f"{len(set(attachment_ids)) - count} of them do not exist")


@group.command(changes=always)
@click.argument("attachment_id", type=int)
@click.option("--reason", required=True, help="Why these bytes are harmless; it is kept.")
def release(attachment_id: int, reason: str) -> None:
    """Serve an attachment whatever clamd says: a false alarm, or an archive that may stay encrypted.

    It is for exactly these bytes, wherever they are uploaded. What lies in quarantine is put back; the next sweep serves it.
    """
    settings = get_settings()
    try:
        done = operations.release(
            get_engine(), open_storage(settings), open_quarantine(settings), attachment_id, who=who()[:100], why=reason[:255]
        )
    except ChangedError:
        raise click.ClickException("what lies in quarantine is not what was put there; nothing was released") from None
    counts = f"{done['released']} with these bytes, {done['restored']} put back from quarantine"
    emit(done, [f"attachment {attachment_id} is served after the next sweep ({counts})"])


@group.command("history", changes=lambda given: given["choice"])
@click.option("--scan", "choice", flag_value="scan", help="Scan them behind the uploads, while they are served.")
@click.option("--block", "choice", flag_value="block", help="Serve none until it has been scanned.")
def history_command(choice: str | None) -> None:
    """Show what is served from before the workers, or after a restore without their records; choose what becomes of it.

    Without an option nothing changes. What is chosen the sweeps carry out, 2,000 rows each; ask again for what is left.
    """
    if choice:
        operations.choose(get_engine(), choice)
    found = operations.history(get_engine())
    said = f"{found['attachments']} attachments of {found['bytes']} bytes are served without a scan of ours on record"
    ask = "choose --scan or --block; till then all stay as they are" if found["attachments"] else "there is nothing to choose"
    emit(found, [said, f"chosen: {found['choice']}" if found["choice"] else ask])


@group.command()
def check() -> None:
    """Say whether clamd's OK can be believed, and for which formats, by samples that it must not call OK.

    Exit 1 if it cannot, or does not answer.
    """
    settings = get_settings()
    clamd = Clamd(settings.clamd_url, scan_seconds=settings.clamd_scan_seconds)
    version = clamd.version()
    faults = scannable.faults(clamd, settings.attachments_largest_bytes)
    said = [f"{'nothing is scanned' if fault.fatal else 'warning'}: {fault.sentence}" for fault in faults]
    allowed = set(settings.attachments_allowed_types)
    looked = scannable.opened(clamd).items()
    words = {name: "looked into" if found else "allowed" if name in allowed else "blocked" for name, found in looked}
    told = [fault._asdict() for fault in faults]
    found = {"engine": version.engine, "database_version": version.database, "faults": told, "formats": words}
    lines: list[Line] = [
        f"ClamAV {version.engine}, signatures {version.database or 'without a version'}",
        *(said or ["clamd finds what is in the formats that are looked into, or says that it could not look"]),
        Table(("format", ""), sorted(words.items())),
    ]
    emit(found, lines, wrong=any(fault.fatal for fault in faults))
