"""Turn a finding into the attachment's new state: the API's flags, the record beside them, the next try, an event."""

from dataclasses import dataclass
from typing import Literal

from tasks.attachments import retry_policy
from tasks.attachments.attachment import PENDING, Attachment
from tasks.attachments.verdicts import BLOCKED, SERVED_NAMES, UNVERIFIED, VERDICTS, Finding, Flags, Kind
from tasks.words import printable

AT_ONCE = 0.0


@dataclass(frozen=True, slots=True)
class Settlement:
    """The new state of one attachment. `flags` None leaves the shared row alone; `wait` is in seconds, None: nothing due.

    `finding` None keeps what is recorded about the content. `claims` stay above 0 while the content may be what ends its scans.
    """

    attachment: Attachment
    flags: Flags | None
    verdict: str
    reason: str
    finding: Finding | None = None
    attempts: int = 0
    claims: int = 0
    wait: float | None = None
    quarantine: str = ""
    event: str = ""

    @property
    def is_new(self) -> bool:
        """Whether a verdict was given here, not only written once more."""
        return self.finding is not None or self.verdict != self.attachment.verdict

    @property
    def tells(self) -> Literal["attachment.blocked", "attachment.freed"] | None:
        """What the API is told of it: that a file may be served from now on, or that, or why else, it may not."""
        if self.flags is None or self.verdict == self.attachment.verdict:
            return None
        if self.verdict not in SERVED_NAMES:
            return "attachment.blocked"
        was_served = self.attachment.historic or self.attachment.verdict in SERVED_NAMES
        return None if was_served else "attachment.freed"


def settle(attachment: Attachment, finding: Finding, *, quarantine: bool) -> Settlement:
    """Settle one try. `quarantine` says whether infected content is to be taken into quarantine after this."""
    if finding.kept:
        flags = VERDICTS[finding.kind].flags
        return Settlement(attachment, flags, attachment.verdict, attachment.reason, quarantine=attachment.quarantine)
    if finding.kind is Kind.DEADLY and attachment.verdict in SERVED_NAMES and finding.sha256 == attachment.sha256:
        return Settlement(attachment, None, attachment.verdict, attachment.reason)  # bytes that an earlier clamd could scan
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
        claims=attachment.claims if finding.kind is Kind.DEADLY else 0,  # until someone asks for another scan
        wait=AT_ONCE if take else None,
        quarantine=PENDING if take else "",
        event=_event(attachment, verdict.name),
    )


def _without_verdict(attachment: Attachment, finding: Finding) -> Settlement:
    attempts = attachment.attempts + 1
    wait: float | None = retry_policy.delay(finding.kind, attempts)
    # Tried alone again if clamd broke off over it, now or before: an outage in between changes nothing about that.
    claims = {Kind.FAILED: attachment.claims, Kind.CLAMD: attachment.claims - 1}.get(finding.kind, 0)
    blocks = retry_policy.blocks(finding.kind, attempts)
    if attachment.verdict in SERVED_NAMES and finding.kind is not Kind.CHANGED:
        # A re-scan that cannot be done takes nothing away from the verdict that there is; the next signatures bring it back.
        if blocks:
            attempts, wait, claims = 0, None, 0
        kept = attachment.verdict, attachment.reason
        return Settlement(attachment, None, *kept, attempts=attempts, claims=claims, wait=wait)
    # Content that is not what was scanned loses its verdict at once, other content when the tries have lasted long enough.
    # What was served before the workers loses nothing to an outage, which says nothing about the file.
    spared = attachment.historic and finding.kind in {Kind.STORAGE, Kind.CLAMD}
    block = (blocks and not spared) or attachment.verdict in SERVED_NAMES
    verdict = UNVERIFIED.name if block else attachment.verdict
    return Settlement(
        attachment,
        BLOCKED if block else None,
        verdict,
        printable(f"{finding.reason} (try {attempts})")[:255],
        attempts=attempts,
        claims=claims,
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
    reason = printable(f"{attachment.signature}; quarantine: {why}")[:255]
    wait = retry_policy.delay(Kind.STORAGE, attempts)
    return Settlement(attachment, None, attachment.verdict, reason, attempts=attempts, wait=wait, quarantine=PENDING)


def scan_again(attachment: Attachment) -> Settlement:
    """Settle an attachment whose content is no longer what its verdict is about."""
    return Settlement(attachment, None, "waiting", "the content changed after its scan", wait=AT_ONCE)


def _event(attachment: Attachment, verdict: str) -> str:
    quiet = verdict == attachment.verdict or (verdict == "clean" and attachment.verdict == "waiting")
    return "" if quiet else verdict
