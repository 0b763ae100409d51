"""Scan one attachment: read it once through clamd and a hash, and trust the verdict only if the file is still the same."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from tasks.attachments import archives, scannable
from tasks.attachments.attachment import Attachment
from tasks.attachments.clamd import AnsweredEarlyError, Clamd, ClamdUnavailableError, Stream, Version
from tasks.attachments.storage.base import Content, MissingError, RefusedError, Storage, StorageUnavailableError
from tasks.attachments.verdicts import SERVED_NAMES, Finding, Kind, read_reply

CHUNK_BYTES = 256 * 1024
CHANGED_TRIES = 3
# So many claims without a result mean that the content itself kills its worker.
MOST_CLAIMS = 5


class StoppedError(Exception):
    """The worker was asked to stop during the scan; the row is given back."""


@dataclass(frozen=True, slots=True)
class Scanner:
    """The means of a scan. `known` finds an earlier verdict on the same bytes by the same engine and signatures;
    `released` says whether a person vouches for them. `transfer_seconds` bounds the reading of one file.
    """

    storage: Storage
    clamd: Clamd
    largest_bytes: int
    transfer_seconds: float
    known: Callable[[str, Version], Finding | None]
    released: Callable[[str], bool]
    stop: Callable[[], bool] = lambda: False


def scan(attachment: Attachment, scanner: Scanner) -> Finding:
    """Return the finding of one try. Raise StoppedError; all other trouble with file, storage or clamd is a finding too."""
    if attachment.claims > MOST_CLAIMS:
        return Finding(Kind.DEADLY, f"{attachment.claims - 1} workers died while they scanned it")
    try:
        again_until = time.monotonic() + scanner.transfer_seconds  # so that all tries together stay below the task's time limit
        for _ in range(CHANGED_TRIES):
            finding = _scan_once(attachment, scanner)
            if finding.kind is not Kind.CHANGED or time.monotonic() > again_until:
                break
    except RefusedError as error:
        return Finding(Kind.REFUSED, str(error))
    except MissingError as error:
        return Finding(Kind.MISSING, str(error))
    except (StorageUnavailableError, ClamdUnavailableError) as error:
        if scanner.stop():
            raise StoppedError from None  # connections are cut then
        if isinstance(error, StorageUnavailableError):
            return Finding(Kind.STORAGE, str(error))
        scanner.clamd.forget_version()
        return Finding(Kind.CLAMD, str(error))
    return finding


def _scan_once(attachment: Attachment, scanner: Scanner) -> Finding:
    with scanner.storage.open(attachment.file_url) as content:
        if content.size is not None and content.size > scanner.largest_bytes:
            return _too_large(scanner, content)
        version = scanner.clamd.version()
        if _holds_still(attachment, content, version):
            return Finding(Kind(attachment.verdict), kept=True)
        reading = _Reading(content, scanner)
        try:
            with scanner.clamd.stream() as stream:
                finding = reading.through(stream, attachment, version)
        except AnsweredEarlyError as early:
            kind, reason = read_reply(early.reply)
            # An answer to half a file is about half a file, whatever it says.
            return Finding(Kind.CLAMD if kind is Kind.CLEAN else kind, reason, identity=content.identity)
        if finding.sha256 is not None and not content.still_is(finding.sha256):
            return Finding(Kind.CHANGED, "the content changed while it was scanned", identity=content.identity)
    return finding


def _holds_still(attachment: Attachment, content: Content, version: Version) -> bool:
    """Return whether the recorded verdict is on this very content, by these very signatures."""
    return (
        attachment.verdict in SERVED_NAMES
        and not attachment.forced
        and attachment.file_url == attachment.scanned_url
        and content.identity != ""
        and content.identity == attachment.identity
        and version.database > 0
        and version == (attachment.engine, attachment.database_version)
    )


def _too_large(scanner: Scanner, content: Content) -> Finding:
    reason = f"larger than ATTACHMENTS_LARGEST_BYTES, {scanner.largest_bytes}"
    return Finding(Kind.TOO_LARGE, reason, size=content.size, identity=content.identity)


class _Reading:
    """One pass over the bytes of a file, in constant memory."""

    def __init__(self, content: Content, scanner: Scanner) -> None:
        self._content = content
        self._scanner = scanner
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._whole = archives.Whole()

    def through(self, stream: Stream, attachment: Attachment, version: Version) -> Finding:
        """Send everything to clamd; return the finding of clamd and of the other checks."""
        if not self._send(stream):
            return _too_large(self._scanner, self._content)
        sha256 = self._sha256.hexdigest()
        # clamd begins to scan at the end of the stream: content that it knows already is never ended, and so not scanned.
        known = None if attachment.forced or not version.database else self._scanner.known(sha256, version)
        if known:
            kind, reason, signature = known.kind, known.reason, known.signature
        else:
            kind, reason, signature = self._judge(stream)
        if kind in {Kind.INFECTED, Kind.ENCRYPTED, Kind.OVER_LIMIT, Kind.BROKEN} and self._scanner.released(sha256):
            kind, reason = Kind.RELEASED, f"released by a person; clamd found {signature or reason}"
        return Finding(
            kind,
            reason[:255],
            signature=signature,
            engine=version.engine,
            database_version=version.database,
            sha256=sha256,
            size=self._size,
            identity=self._content.identity,
        )

    def _send(self, stream: Stream) -> bool:
        """Send all content but the end of the stream; return False if it is larger than what is scanned."""
        ends_at = time.monotonic() + self._scanner.transfer_seconds
        buffer = memoryview(bytearray(CHUNK_BYTES))
        while length := self._content.read_into(buffer):
            chunk = buffer[:length]
            if not self._size:
                self._whole = archives.look(bytes(chunk[: archives.HEAD_BYTES]))
            self._size += length
            if self._size > self._scanner.largest_bytes:
                return False
            if time.monotonic() > ends_at:
                raise StorageUnavailableError(f"the content did not arrive within {self._scanner.transfer_seconds:.0f} s")
            if self._scanner.stop():
                raise StoppedError
            self._sha256.update(chunk)
            self._whole.feed(chunk)
            stream.send(chunk)
        return True

    def _judge(self, stream: Stream) -> tuple[Kind, str, str]:
        """Return the verdict of clamd and of the archive's structure: kind, reason and signature."""
        kind, detail = read_reply(stream.finish())
        if kind is Kind.CLEAN and (fault := self._whole.fault(self._size, scannable.most_inside(self._scanner.largest_bytes))):
            return fault.kind, fault.reason, ""
        found = kind in {Kind.INFECTED, Kind.ENCRYPTED, Kind.OVER_LIMIT, Kind.BROKEN}
        return (kind, f"clamd found {detail}", detail) if found else (kind, detail, "")
