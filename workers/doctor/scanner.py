"""clamd: whether it answers, with recent signatures, believably and for files as large as are allowed."""

from collections.abc import Iterator
from datetime import UTC, datetime

from tasks.attachments.clamd import Clamd, ClamdUnavailableError
from tasks.attachments.scannable import faults
from workers.doctor.report import Finding, Question, not_configured, ok, wrong

OLDEST_DAYS = 3


def clamd(question: Question) -> Iterator[Finding]:
    """Find out about CLAMD_URL by what it says to files that it must not call OK."""
    settings = question.settings
    if settings.attachments_url is None:
        yield not_configured("clamd", "ATTACHMENTS_URL is not set: nothing is scanned")
        return
    scanner = Clamd(settings.clamd_url, scan_seconds=min(settings.clamd_scan_seconds, 45))
    try:
        version = scanner.version()
        yield ok("clamd", f"{version.engine} at {settings.clamd_url}")
        yield _signatures(scanner.signatures_of())
        found = faults(scanner, settings.attachments_largest_bytes)
    except ClamdUnavailableError as error:
        yield wrong("clamd", f"CLAMD_URL {settings.clamd_url}: {error}; attachments wait, unserved")
        return
    for fault in found:
        yield wrong("clamd limits", fault.sentence)
    if not found:
        yield ok(
            "clamd limits", f"files of up to {settings.attachments_largest_bytes:,} bytes, and it tells what it cannot look at"
        )


def _signatures(made: datetime | None) -> Finding:
    if made is None:
        return wrong("signatures", "clamd has no daily database; run freshclam and look at its log")
    days = (datetime.now(UTC) - made).days
    if days > OLDEST_DAYS:
        return wrong("signatures", f"they are {days} days old; see that freshclam runs (systemctl status clamav-freshclam)")
    return ok("signatures", f"of {made:%Y-%m-%d %H:%M} UTC")
