"""Turn a finding into the attachment's new state: the API's flags, the record beside them, the next try, an event."""

from dataclasses import dataclass

from tasks.attachments import retry_policy
from tasks.attachments.attachment import PENDING, Attachment
from tasks.attachments.verdicts import BLOCKED, SERVED_NAMES, UNVERIFIED, VERDICTS, Finding, Flags, Kind
from tasks.words import printable

AT_ONCE = 0.0


@dataclass(frozen=True, slots=True)
class Settlement:
    """The new state of one attachment. `flags` None leaves the shared row alone; `wait` is in seconds, None: nothing due.

    `finding` None keeps what is recorded about the content.
    """

    attachment: Attachment
    flags: Flags | None
    verdict: str
    reason: str
    finding: Finding | None = None
    attempts: int = 0
    wait: float | None = None
    quarantine: str = ""
    event: str = ""


def settle(attachment: Attachment, finding: Finding, *, quarantine: bool) -> Settlement:
    """Settle one try. `quarantine` says whether infected content is to be taken into quarantine after this."""
    if finding.kept:
        flags = VERDICTS[finding.kind].flags
        return Settlement(attachment, flags, attachment.verdict, attachment.reason, quarantine=attachment.quarantine)
    if finding.kind is Kind.MISSING and "://" in attachment.quarantine:
        infected = VERDICTS[Kind.INFECTED]
        return Settlement(attachment, infected.flags, infected.name, attachment.reason, quarantine=attachment.quarantine)
    if finding.kind in retry_policy.LADDERS:
        return _without_verdict(attachment, finding)
    verdict = VERDICTS[finding.kind]
    take = quarantine and finding.kind is Kind.INFECTED
    return Settlement(
        attachment,
        verdict.flags,
        verdict.name,
        finding.reason,
        finding,
        wait=AT_ONCE if take else None,
        quarantine=PENDING if take else "",
        event=_event(attachment, verdict.name),
    )


def _without_verdict(attachment: Attachment, finding: Finding) -> Settlement:
    attempts = attachment.attempts + 1
    wait = retry_policy.delay(finding.kind, attempts)
    served = attachment.verdict in SERVED_NAMES
    changed = finding.identity not in ("", attachment.identity)
    if served and finding.kind is Kind.CLAMD and not changed:
        # A re-scan that cannot be done takes nothing away from the verdict that there is.
        return Settlement(attachment, None, attachment.verdict, attachment.reason, attempts=attempts if wait else 0, wait=wait)
    # Content that is not what was scanned loses its verdict at once, other content when the tries have lasted long enough.
    block = (served and changed) or wait is None or retry_policy.blocks(finding.kind, attempts)
    verdict = UNVERIFIED.name if block else attachment.verdict
    reason = printable(f"{finding.reason} (try {attempts}{'' if wait else ', the last'})")[:255]
    return Settlement(
        attachment,
        BLOCKED if block else None,
        verdict,
        reason,
        attempts=attempts,
        wait=wait,
        quarantine=attachment.quarantine,
        event=_event(attachment, verdict) if block else "",
    )


def quarantined(attachment: Attachment, where: str) -> Settlement:
    """Settle an infected attachment whose content was taken into quarantine, or was gone."""
    return Settlement(
        attachment, None, attachment.verdict, attachment.reason, quarantine=where, event="quarantined" if "://" in where else ""
    )


def quarantine_failed(attachment: Attachment, why: str) -> Settlement:
    """Settle an infected attachment that could not be taken into quarantine yet. It stays blocked by its flags."""
    attempts = attachment.attempts + 1
    wait = retry_policy.delay(Kind.STORAGE, attempts)
    reason = printable(f"{attachment.signature}; quarantine: {why}")[:255]
    quarantine = "failed" if wait is None else PENDING
    return Settlement(attachment, None, attachment.verdict, reason, attempts=attempts, wait=wait, quarantine=quarantine)


def scan_again(attachment: Attachment) -> Settlement:
    """Settle an attachment whose content is no longer what its verdict is about."""
    return Settlement(attachment, None, "waiting", "the content changed after its scan", wait=AT_ONCE)


def _event(attachment: Attachment, verdict: str) -> str:
    quiet = verdict == attachment.verdict or (verdict == "clean" and attachment.verdict == "waiting")
    return "" if quiet else verdict
