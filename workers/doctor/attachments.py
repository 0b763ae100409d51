"""The dependencies of scans: a clamd that can be believed, the uploads, and the quarantine."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tasks.attachments.clamd import Clamd, ClamdUnavailableError
from tasks.attachments.quarantine import open_quarantine
from tasks.attachments.scannable import faults, opened
from workers.doctor.places import READ, WRITE, place
from workers.doctor.report import Answer, Host, ok, wrong

OLDEST_DAYS = 3
SCAN_SECONDS = 45.0


def clamd(host: Host) -> Iterator[Answer]:
    """Give clamd files that it must not call OK, and look at how old its signatures are."""
    settings = host.settings
    scanner = Clamd(settings.clamd_url, scan_seconds=min(settings.clamd_scan_seconds, SCAN_SECONDS))
    try:
        yield _signatures(scanner.version().made)
        for fault in faults(scanner, settings.attachments_largest_bytes):
            yield wrong(fault.sentence)
        closed = [name for name, found in opened(scanner).items() if not found]
        yield ok(f"blocked, since nothing looks into them, unless ATTACHMENTS_ALLOWED_TYPES names one: {', '.join(closed)}")
        yield ok(f"ClamAV {scanner.version().engine}, for files of up to {settings.attachments_largest_bytes:,} bytes")
    except ClamdUnavailableError as error:
        yield wrong(f"CLAMD_URL {settings.clamd_url}: {error}; start it: attachments wait, unserved")


def _signatures(made: datetime | None) -> Answer:
    if made is None:
        return wrong("clamd has no daily database; run freshclam and look at its log")
    age = datetime.now(UTC) - made
    if age > timedelta(days=OLDEST_DAYS):
        return wrong(f"signatures are {age.days} days old; see that freshclam runs (systemctl status clamav-freshclam)")
    return ok(f"signatures of {made:%Y-%m-%d %H:%M} UTC")


def uploads(host: Host) -> Iterator[Answer]:
    """Look at where uploads lie; infected ones may have to be taken out."""
    settings = host.settings
    moves = settings.attachments_quarantine_url is not None and settings.attachments_quarantine == "move"
    yield place("ATTACHMENTS_URL", str(settings.attachments_url), WRITE if moves else READ, shared=True)


def quarantine(host: Host) -> Iterator[Answer]:
    """Look at where infected content goes."""
    open_quarantine(host.settings)
    yield place("ATTACHMENTS_QUARANTINE_URL", str(host.settings.attachments_quarantine_url))
