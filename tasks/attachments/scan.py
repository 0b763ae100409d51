"""Scan one attachment: read it once through clamd and a hash, and trust the verdict only if the file is still the same."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from tempfile import TemporaryFile
from typing import IO

from tasks.attachments import archives, formats, scannable, zips
from tasks.attachments.attachment import Attachment
from tasks.attachments.clamd import (
    AnsweredEarlyError,
    BrokeOffError,
    Clamd,
    ClamdAwayError,
    ClamdUnavailableError,
    Stream,
    Version,
)
from tasks.attachments.scannable import EICAR, Fitness, UnfitError
from tasks.attachments.storage.base import Content, MissingError, RefusedError, Storage, StorageUnavailableError
from tasks.attachments.verdicts import RELEASABLE, SERVED_NAMES, FaultError, Finding, Kind, read_reply

CHUNK_BYTES = 256 * 1024
CHANGED_TRIES = 3
# So many claims without a result mean that the content itself ends clamd or its worker, or is never done with.
MOST_CLAIMS = 5
# How soon a clamd that broke off over one file must be done with a harmless one.
CONTROL_SECONDS = 30.0
# A verdict on the same bytes is taken over while it is so young: signatures may come without a version, and set-ups change.
KNOWN_SECONDS = 3600.0
# A file that is shorter than its row says may still be on its way; later it is scanned as it is.
SHORT_TRIES = 2


class StoppedError(Exception):
    """The worker was asked to stop during the scan; the row is given back."""


@dataclass(frozen=True, slots=True)
class Scanner:
    """The means of a scan.

    `known` finds a verdict on the same bytes by the same engine and signatures, no older than so many seconds; `moved` one on a
    file that quarantine took away for another row; `released` says whether a person vouches for bytes; `fitness` tests, once
    in a while, what a version of clamd opens. `transfer_seconds` bounds the reading of one file. `allowed` types need not be
    opened, `blocked` ones are refused.
    """

    storage: Storage
    clamd: Clamd
    largest_bytes: int
    transfer_seconds: float
    known: Callable[[str, Version, float], Finding | None]
    released: Callable[[str], bool]
    moved: Callable[[str], Finding | None]
    fitness: Callable[[Version], Fitness]
    allowed: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    stop: Callable[[], bool] = lambda: False


def scan(attachment: Attachment, scanner: Scanner) -> Finding:
    """Return the finding of one try. Raise StoppedError; all other trouble with file, storage or clamd is a finding too."""
    try:
        if attachment.claims > MOST_CLAIMS:
            return _deadly(attachment, scanner)
        again_until = time.monotonic() + scanner.transfer_seconds  # so that all tries together stay below the task's time limit
        for _ in range(CHANGED_TRIES):
            finding = _scan_once(attachment, scanner)
            if finding.kind is not Kind.CHANGED or time.monotonic() > again_until:
                break
    except RefusedError as error:
        return Finding(Kind.REFUSED, str(error))
    except MissingError as error:
        gone = None if "://" in attachment.quarantine else scanner.moved(attachment.file_url)
        return gone or Finding(Kind.MISSING, str(error))
    except UnfitError as error:
        return Finding(Kind.CLAMD, str(error))
    except (StorageUnavailableError, ClamdUnavailableError) as error:
        if scanner.stop():
            raise StoppedError from None  # connections are cut then
        if isinstance(error, StorageUnavailableError):
            return Finding(Kind.STORAGE, str(error))
        scanner.clamd.forget_version()
        return Finding(_charged(scanner) if isinstance(error, BrokeOffError) else Kind.CLAMD, str(error))
    if finding.kind is Kind.FAILED:
        scanner.clamd.forget_version()
        return replace(finding, kind=_charged(scanner))
    return finding


def _charged(scanner: Scanner) -> Kind:
    """Return whose failure it is that clamd broke off: the file's, unless clamd does not get on with a harmless file either."""
    try:
        answer = scannable.ask(scanner.clamd, iter([EICAR]), seconds=CONTROL_SECONDS)
    except ClamdAwayError:
        return Kind.FAILED  # it may have ended of this file; one that was only restarted is harmless when it is tried again
    except ClamdUnavailableError:
        return Kind.CLAMD
    return Kind.FAILED if answer is Kind.INFECTED else Kind.CLAMD


def _deadly(attachment: Attachment, scanner: Scanner) -> Finding:
    """Block content that is dangerous to scan, by its hash, unless a person vouches for it."""
    tries = attachment.claims - 1
    reason = f"{tries} scans of it broke off: it ends clamd or the worker, or clamd does not come to an end"
    with scanner.storage.open(attachment.file_url) as content:
        if content.size is not None and content.size > scanner.largest_bytes:
            return _too_large(scanner, content)
        sha256, size = hashlib.sha256(), 0
        for chunk in _chunks(content, scanner):
            sha256.update(chunk)
            size += len(chunk)
        if size > scanner.largest_bytes:
            return _too_large(scanner, content)
        return _vouched(Finding(Kind.DEADLY, reason, sha256=sha256.hexdigest(), size=size, identity=content.identity), scanner)


def _vouched(finding: Finding, scanner: Scanner) -> Finding:
    if finding.kind in RELEASABLE and finding.sha256 and scanner.released(finding.sha256):
        found = finding.signature or finding.reason
        return replace(finding, kind=Kind.RELEASED, reason=f"released by a person; clamd found {found}"[:255])
    return finding


def _scan_once(attachment: Attachment, scanner: Scanner) -> Finding:
    with scanner.storage.open(attachment.file_url) as content:
        if content.size is not None and content.size > scanner.largest_bytes:
            return _too_large(scanner, content)
        if content.size is not None and attachment.attempts < SHORT_TRIES and content.size < (attachment.file_size or 0):
            raise MissingError(f"the file has only {content.size} of the {attachment.file_size} bytes of its row's file_size")
        version = scanner.clamd.version()
        if _holds_still(attachment, content, version):
            return Finding(Kind(attachment.verdict), kept=True)
        reading = _Reading(content, scanner, scanner.fitness(version))
        try:
            with reading.open(), scanner.clamd.stream() as stream:
                finding = reading.through(stream, attachment, version)
        except AnsweredEarlyError as early:
            kind, reason = read_reply(early.reply)
            # An answer to half a file is about half a file, whatever it says.
            return Finding(Kind.CLAMD if kind is Kind.CLEAN else kind, reason, identity=content.identity)
        if finding.sha256 is not None and not content.still_is(finding.sha256):
            return Finding(Kind.CHANGED, "the content changed while it was scanned", identity=content.identity)
    return finding


def _holds_still(attachment: Attachment, content: Content, version: Version) -> bool:
    """Return whether the recorded verdict was given a moment ago, on this very content: the API's call came twice."""
    return (
        version == (attachment.engine, attachment.database_version)
        and attachment.fresh
        and attachment.verdict in SERVED_NAMES
        and not attachment.forced
        and attachment.file_url == attachment.scanned_url
        and content.identity != ""
        and content.identity == attachment.identity
    )


def _too_large(scanner: Scanner, content: Content) -> Finding:
    reason = f"larger than ATTACHMENTS_LARGEST_BYTES, {scanner.largest_bytes}"
    return Finding(Kind.TOO_LARGE, reason, size=content.size, identity=content.identity)


def _chunks(content: Content, scanner: Scanner) -> Iterator[memoryview]:
    """Yield all content, up to a chunk more than is scanned, in one buffer that is written anew for each chunk."""
    ends_at = time.monotonic() + scanner.transfer_seconds
    buffer, size = memoryview(bytearray(CHUNK_BYTES)), 0
    while size <= scanner.largest_bytes and (length := content.read_into(buffer)):
        if time.monotonic() > ends_at:
            raise StorageUnavailableError(f"the content did not arrive within {scanner.transfer_seconds:.0f} s")
        if scanner.stop():
            raise StoppedError
        size += length
        yield buffer[:length]


class _Reading:
    """One pass over a file, in constant memory; what can be unpacked is kept in a temporary file for a look inside."""

    def __init__(self, content: Content, scanner: Scanner, fitness: Fitness) -> None:
        self._content = content
        self._scanner = scanner
        self._fitness = fitness
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._types: set[str] = set()
        self._file: IO[bytes] | None = None
        self._tail = b""
        self._unopened = {
            name: mark for name, mark in formats.ANYWHERE.items() if name not in fitness.opens | scanner.allowed
        }  # fmt: skip

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold the temporary file, if there is one, while the context lasts."""
        with ExitStack() as self._held:
            yield

    def through(self, stream: Stream, attachment: Attachment, version: Version) -> Finding:
        """Send everything to clamd; return the finding of clamd and of the other checks."""
        for chunk in _chunks(self._content, self._scanner):
            self._take(chunk)
            stream.send(chunk)
        if self._size > self._scanner.largest_bytes:
            return _too_large(self._scanner, self._content)
        sha256 = self._sha256.hexdigest()
        # clamd begins to scan at the end of the stream: content that it knows already is never ended, and so not scanned.
        age = min(KNOWN_SECONDS, time.monotonic() - self._fitness.since)
        # A row that had a verdict and is scanned again asks for a true scan.
        known = None if attachment.forced or not version.database else self._scanner.known(sha256, version, age)
        if known:
            kind, reason, signature = known.kind, known.reason, known.signature
        else:
            kind, reason, signature = self._judge(stream)
        finding = Finding(
            kind,
            reason[:255],
            signature=signature,
            engine=version.engine,
            database_version=version.database,
            sha256=sha256,
            size=self._size,
            identity=self._content.identity,
        )
        return _vouched(finding, self._scanner)

    def _take(self, chunk: memoryview) -> None:
        if not self._size:
            self._types = formats.types(bytes(chunk[: formats.HEAD_BYTES]))
            if self._types & archives.WALKED:
                self._file = self._held.enter_context(TemporaryFile())  # noqa: SIM115 - `open` closes it
        self._size += len(chunk)
        self._sha256.update(chunk)
        if self._file:
            try:
                self._file.write(chunk)
            except OSError as error:
                raise StorageUnavailableError(f"the temporary folder takes no more: {error.strerror}") from None
        tail = self._tail + bytes(chunk)
        self._types |= {name for name, mark in self._unopened.items() if mark in tail}
        self._tail = tail[-zips.TAIL_BYTES :]

    def _judge(self, stream: Stream) -> tuple[Kind, str, str]:
        """Return the verdict of clamd and of a look at the content: kind, reason and signature."""
        kind, detail = read_reply(stream.finish())
        if kind is Kind.CLEAN:
            return *self._look(), ""
        if kind is Kind.OVER_LIMIT:
            return kind, f"clamd found {detail}; to let it look on, raise {detail.rpartition('.')[2]} in clamd.conf", detail
        return (kind, f"clamd found {detail}", detail) if kind in RELEASABLE else (kind, detail, "")

    def _look(self) -> tuple[Kind, str]:
        """Return what is to be said of content that clamd calls OK."""
        try:
            self._types |= self._inside()
        except FaultError as fault:
            return fault.kind, str(fault)
        if refused := self._types & self._scanner.blocked:
            return Kind.REFUSED_TYPE, f"refused type: {', '.join(sorted(refused))} (ATTACHMENTS_BLOCKED_TYPES)"
        if closed := self._types - formats.LEAVES - self._fitness.opens - self._scanner.allowed:
            return Kind.NOT_OPENED, f"{', '.join(sorted(closed))}: clamd does not look into it"
        return Kind.CLEAN, ""

    def _inside(self) -> set[str]:
        if not self._file:
            if zips.ends_as_zip(self._tail):
                raise FaultError(Kind.BROKEN, "a zip behind other bytes")
            return set()
        try:
            self._file.flush()
            with mmap(self._file.fileno(), 0, access=ACCESS_READ) as data:
                return archives.look(data, scannable.most_inside(self._scanner.largest_bytes))
        except OSError as error:
            raise StorageUnavailableError(f"the temporary folder takes no more: {error.strerror}") from None
