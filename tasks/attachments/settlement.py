"""One try at an attachment: the claimed row, and its new state after it: flags, record, next try, event."""

import math
import random
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tasks.attachments.verdicts import BLOCKED, FLAGS, SERVED_NAMES, VERDICTS, Finding, Flags, Kind
from tasks.words import printable

PENDING = "pending"
# Until a row that someone else holds, or the schema refuses, is tried again.
LOCKED_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Attachment:
    """A claimed row. The second half is from worker_scans; `sha256` and what follows belong to its verdict."""

    id: int
    file_url: str
    file_size: int | None = None
    claims: int = 1
    attempts: int = 0
    forced: bool = False
    verdict: str = "waiting"
    reason: str = ""
    signature: str = ""
    sha256: str | None = None
    quarantine: str = ""
    historic: bool = False
    """It is served from before the workers, and waits for its first scan."""
    of_row: str = ""
    """What tells the row from others of its id."""
    due_at: str | None = None
    """When its next try is due, where a call has it tried before: that counts as none, and changes nothing about it."""

    @property
    def names(self) -> tuple[int, str, str]:
        """What the row must still say when the result is written."""
        return self.id, self.file_url, self.of_row


@dataclass(frozen=True, slots=True)
class Settlement:
    """The new state of one attachment. `flags` None leaves the shared row alone; `wait` is in seconds, None: nothing due.

    `finding` None keeps what is recorded about the content. `claims` stay above 0 while the content may be what ends its scans.
    """

    attachment: Attachment
    verdict: str
    reason: str
    flags: Flags | None = None
    finding: Finding | None = None
    attempts: int = 0
    claims: int = 0
    wait: float | None = None
    quarantine: str = ""
    event: str = ""

    @property
    def tells(self) -> Literal["attachment.blocked", "attachment.freed"] | None:
        """What the API is told of it: that a file may be served from now on, or that, or why else, it may not."""
        if self.flags is None or self.verdict == self.attachment.verdict:
            return None
        if self.verdict not in SERVED_NAMES:
            return "attachment.blocked"
        was_served = self.attachment.historic or self.attachment.verdict in SERVED_NAMES
        return None if was_served else "attachment.freed"

    @property
    def later(self) -> "Settlement":
        """What is recorded while the row cannot be written: no verdict but that it is bad, and another scan. It is no try."""
        known = self.attachment
        return Settlement(
            known,
            known.verdict if self.verdict in SERVED_NAMES else "unverified",
            known.reason or "its row cannot be written",
            attempts=known.attempts,
            claims=min(self.claims, known.claims - bool(self.finding)),
            wait=LOCKED_SECONDS,
            quarantine=known.quarantine,
        )


# Up to a half above the ladder's step: files that failed together must not come back together.
JITTER = (1.0, 1.5)


class Ladder(NamedTuple):
    """Seconds until the next try: `first`, then each `growth` times the one before, never above `cap`.

    The row becomes (0, 0) with try number `blocks`, and is tried on while it lives: no fault of a service is final.
    """

    first: float
    growth: float
    cap: float
    blocks: int


HOUR, DAY = 3600, 86_400
OUTAGE_TRIES = 20
"""Of a storage, in a week: it may be that it, or what browsers make of its answers, is never to be scanned."""

#   try after    1    2     3     4      5      6 ...
#   STORAGE     5 s  10 s  20 s  40 s   80 s  160 s  up to a day
#   FAILED      5 s  50 s  8 min  1 h                 five of them block a file for good: no fault of an hour may be that
#   MISSING     5 s  20 s  80 s  5 min  21 min       up to a day: a file may still be on its way, or its volume away
LADDERS = {
    Kind.CLAMD: Ladder(first=5, growth=2, cap=HOUR, blocks=8),
    Kind.FAILED: Ladder(first=5, growth=10, cap=HOUR, blocks=8),
    Kind.STORAGE: Ladder(first=5, growth=2, cap=DAY, blocks=8),
    Kind.MISSING: Ladder(first=5, growth=4, cap=DAY, blocks=6),
    Kind.CHANGED: Ladder(first=2, growth=2, cap=DAY, blocks=6),
}


def delay(kind: Kind, attempts: int) -> float:
    """Return the seconds to wait after so many tries in a row without a verdict."""
    ladder = LADDERS[kind]
    return min(ladder.cap, ladder.first * ladder.growth ** min(attempts - 1, 30)) * random.uniform(*JITTER)


def unchanged(attachment: Attachment, **more: Any) -> Settlement:
    """Settle an attachment whose verdict stays as it is."""
    return Settlement(attachment, attachment.verdict, attachment.reason, **more)


def settle(attachment: Attachment, finding: Finding, *, quarantine: bool) -> Settlement:
    """Settle one try. `quarantine` says whether infected content is to be taken into quarantine after this."""
    if finding.kind is Kind.DEADLY and attachment.verdict in SERVED_NAMES and finding.sha256 == attachment.sha256:
        return unchanged(attachment)  # bytes that an earlier clamd could scan
    if finding.kind is Kind.MISSING and "://" in attachment.quarantine:
        return Settlement(attachment, "infected", attachment.reason, FLAGS["infected"], quarantine=attachment.quarantine)
    if finding.kind in LADDERS:
        return _without_verdict(attachment, finding)
    verdict = VERDICTS[finding.kind]
    take = quarantine and finding.kind is Kind.INFECTED
    return Settlement(
        attachment,
        verdict,
        finding.reason,
        FLAGS[verdict],
        finding,
        claims=attachment.claims if finding.kind is Kind.DEADLY else 0,  # until someone asks for another scan
        wait=0 if take else None,
        quarantine=PENDING if take else "",
        event=_event(attachment, verdict),
    )


def _without_verdict(attachment: Attachment, finding: Finding) -> Settlement:
    attempts = attachment.attempts + (attachment.due_at is None)
    wait = delay(finding.kind, attempts)
    # Tried alone again if clamd broke off over it, now or before: an outage in between changes nothing about that.
    claims = {Kind.FAILED: attachment.claims, Kind.CLAMD: attachment.claims - 1}.get(finding.kind, 0)
    blocks, was_served = attempts >= LADDERS[finding.kind].blocks, attachment.verdict in SERVED_NAMES
    if was_served and finding.kind is not Kind.CHANGED:
        # A re-scan that cannot be done takes nothing away from the verdict that there is; the next signatures bring it back.
        return unchanged(attachment) if blocks else unchanged(attachment, attempts=attempts, claims=claims, wait=wait)
    # Content that is not what was scanned loses its verdict at once, other content when the tries have lasted long enough.
    # What was served before the workers loses nothing to an outage, which says nothing about the file; but in a week of them.
    most = {Kind.STORAGE: OUTAGE_TRIES, Kind.CLAMD: math.inf}.get(finding.kind, 0)
    spared = attachment.historic and attempts < most
    block = (blocks and not spared) or was_served
    verdict = "unverified" if block else attachment.verdict
    return Settlement(
        attachment,
        verdict,
        printable(f"{finding.reason} (try {attempts})")[:255],
        BLOCKED if block else None,
        attempts=attempts,
        claims=claims,
        wait=wait,
        quarantine=attachment.quarantine,
        event=_event(attachment, verdict) if block else "",
    )


def _event(attachment: Attachment, verdict: str) -> str:
    quiet = verdict == attachment.verdict or (verdict == "clean" and attachment.verdict == "waiting")
    return "" if quiet else verdict
