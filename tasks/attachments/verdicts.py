"""The outcomes of a scan, and the flags that each means for the API.

The API serves a file only if `scanned_for_virus AND is_safe`, so (1, 1) is the one pair that opens it.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from tasks.attachments.clamd import CLEAN
from tasks.words import printable


class Kind(StrEnum):
    """How one try at one attachment ended."""

    CLEAN = "clean"
    INFECTED = "infected"
    RELEASED = "released"
    ENCRYPTED = "encrypted"
    OVER_LIMIT = "over a limit"
    TOO_LARGE = "too large"
    BROKEN = "broken"
    NOT_OPENED = "not opened"
    REFUSED_TYPE = "refused type"
    REFUSED = "refused"
    DEADLY = "deadly"
    MISSING = "missing"
    STORAGE = "storage"
    CLAMD = "clamd"
    FAILED = "failed"
    CHANGED = "changed"


class Flags(NamedTuple):
    """The two columns of `message_attachments`."""

    scanned_for_virus: bool
    is_safe: bool


SERVED = Flags(scanned_for_virus=True, is_safe=True)
BLOCKED = Flags(scanned_for_virus=False, is_safe=False)
# The words of `worker_scans.verdict`, beside `waiting`, and the flags that go with each.
FLAGS = {
    "clean": SERVED,
    "infected": Flags(scanned_for_virus=True, is_safe=False),
    "released": SERVED,
    "unscannable": BLOCKED,
    "unverified": BLOCKED,
}
WORDS = ("waiting", *FLAGS)
# The verdicts under which a file is served: only from these may a re-scan change the row.
SERVED_NAMES = frozenset(name for name, flags in FLAGS.items() if flags == SERVED)

# Final at once. The kinds that are not here are tried again (LADDERS) and end as `unverified`.
VERDICTS = {
    Kind.CLEAN: "clean",                # clamd looked at exactly these bytes and found nothing
    Kind.INFECTED: "infected",          # clamd found a signature in them
    Kind.RELEASED: "released",          # clamd did, but a person vouches for exactly these bytes
    Kind.ENCRYPTED: "unscannable",      # nobody but its owner can look inside
    Kind.OVER_LIMIT: "unscannable",     # clamd stopped at one of its limits: a bomb, too deep, too long
    Kind.TOO_LARGE: "unscannable",      # larger than what is scanned at all
    Kind.BROKEN: "unscannable",         # cut short or forged: clamd says OK without having looked inside
    Kind.NOT_OPENED: "unscannable",     # of a format that this clamd does not look into
    Kind.REFUSED_TYPE: "unscannable",   # of a type that ATTACHMENTS_BLOCKED_TYPES names
    Kind.REFUSED: "unscannable",        # file_url leads out of ATTACHMENTS_URL
    Kind.DEADLY: "unscannable",         # each scan of it ended clamd or the worker, or did not end
}  # fmt: skip
# Blocked for what was found in bytes that are known by their hash: a person may vouch for them.
RELEASABLE = {
    Kind.INFECTED, Kind.ENCRYPTED, Kind.OVER_LIMIT, Kind.BROKEN, Kind.NOT_OPENED, Kind.REFUSED_TYPE, Kind.DEADLY,
}  # fmt: skip

# Names that clamd reports as FOUND though it found no malware: it says that it could not look. Needs AlertExceedsMax and
# AlertEncrypted, without which it says OK instead (tasks/attachments/scannable.py tests for them).
NOT_LOOKED_AT = {
    "Heuristics.Limits.Exceeded": Kind.OVER_LIMIT,
    "Heuristics.Encrypted.": Kind.ENCRYPTED,
    "Heuristics.Broken.": Kind.BROKEN,
}
FOUND = re.compile(rb"stream: ([^\x00-\x1f\x7f]{1,255}) FOUND\0")
# An error that clamd names is about this content, unless its own machine is in trouble (cl_strerror of libclamav).
ERROR = re.compile(rb"(?:stream: )?([^\x00-\x1f\x7f]{1,200}) ERROR\0")
OWN_TROUBLE = re.compile(
    rb"Can't (?:open|create|unlink|get|read|set|write|duplicate|access|map|allocate)|Error writing|INSTREAM:"
)


class FaultError(Exception):
    """Content that cannot count as scanned, by its own structure; the text says why. Or a `signature` was found inside."""

    def __init__(self, kind: Kind, reason: str, signature: str = "") -> None:
        super().__init__(reason)
        self.kind, self.signature = kind, signature


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one try. The fields about content are set when all its bytes were read."""

    kind: Kind
    reason: str = ""
    signature: str = ""
    engine: str = ""
    database_version: int = 0
    sha256: str | None = None
    size: int | None = None
    identity: str = ""
    scanned_at: datetime | None = None
    """Of what was taken from memory."""


def read_reply(reply: bytes) -> tuple[Kind, str]:
    """Return the meaning of clamd's reply to INSTREAM, with the signature or a reason. An unknown reply is never clean."""
    if reply == CLEAN:
        return Kind.CLEAN, ""
    if match := FOUND.fullmatch(reply):
        signature = printable(match[1].decode("utf-8", "replace"))[:255]
        kinds = (kind for prefix, kind in NOT_LOOKED_AT.items() if signature.startswith(prefix))
        return next(kinds, Kind.INFECTED), signature
    if reply == b"INSTREAM size limit exceeded. ERROR\0":
        return Kind.TOO_LARGE, "larger than clamd's StreamMaxLength"
    if not reply:
        return Kind.FAILED, "clamd closed the connection without an answer"
    if reply == b"COMMAND READ TIMED OUT\n":
        return Kind.STORAGE, "the content came so slowly that clamd did not wait for it"
    if (match := ERROR.fullmatch(reply)) and not OWN_TROUBLE.match(match[1]):
        return Kind.FAILED, f"clamd failed at it: {printable(match[1].decode('utf-8', 'replace'))}"
    return Kind.CLAMD, f"clamd said {reply[:120]!r}"
