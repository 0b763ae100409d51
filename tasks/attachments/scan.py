"""Scan one attachment: read it once through clamd and a hash, and trust the verdict only if the file is still the same."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tasks.attachments import archives, formats, scannable
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
from tasks.attachments.scannable import EICAR, Fitness
from tasks.attachments.storage.base import Content, MissingError, RefusedError, Storage, StorageUnavailableError
from tasks.attachments.verdicts import RELEASABLE, SERVED_NAMES, FaultError, Finding, Kind, read_reply

CHUNK_BYTES = 1 << 20
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
    except FaultError as fault:
        return Finding(fault.kind, str(fault))
    except RefusedError as error:
        return Finding(Kind.REFUSED, str(error))
    except MissingError as error:
        gone = None if "://" in attachment.quarantine else scanner.moved(attachment.file_url)
        return gone or Finding(Kind.MISSING, str(error))
    except (StorageUnavailableError, ClamdUnavailableError) as error:
        if scanner.stop():
            raise StoppedError from None  # connections are cut then
        if isinstance(error, StorageUnavailableError):
            return Finding(Kind.STORAGE, str(error))
        finding = Finding(Kind.FAILED if isinstance(error, BrokeOffError) else Kind.CLAMD, str(error))
    if finding.kind in {Kind.FAILED, Kind.CLAMD}:
        scanner.clamd.forget_version()
    return replace(finding, kind=_charged(scanner)) if finding.kind is Kind.FAILED else finding


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
        sha256 = hashlib.sha256()
        size = sum(len(chunk) for chunk in _chunks(content, scanner, sha256.update))
        return _vouched(Finding(Kind.DEADLY, reason, sha256=sha256.hexdigest(), size=size, identity=content.identity), scanner)


def _vouched(finding: Finding, scanner: Scanner) -> Finding:
    if finding.kind in RELEASABLE and finding.sha256 and scanner.released(finding.sha256):
        found = finding.signature or finding.reason
        return replace(finding, kind=Kind.RELEASED, reason=f"released by a person; clamd found {found}"[:255])
    return finding


def _scan_once(attachment: Attachment, scanner: Scanner) -> Finding:
    with scanner.storage.open(attachment.file_url) as content:
        _check_size(content.size or 0, scanner)
        if content.size is not None and attachment.attempts < SHORT_TRIES and content.size < (attachment.file_size or 0):
            raise MissingError(f"the file has only {content.size} of the {attachment.file_size} bytes of its row's file_size")
        version = scanner.clamd.version()
        if _holds_still(attachment, content, version):
            return Finding(Kind(attachment.verdict), kept=True)
        try:
            finding = _through(attachment, content, scanner, version)
        except AnsweredEarlyError as early:
            kind, reason = read_reply(early.reply)
            # An answer to half a file is about half a file, whatever it says.
            return Finding(Kind.CLAMD if kind is Kind.CLEAN else kind, reason, identity=content.identity)
        except OSError as error:
            raise StorageUnavailableError(f"the temporary folder takes no more: {error.strerror}") from None
        if not content.still_is(finding.sha256 or ""):
            return Finding(Kind.CHANGED, "the content changed while it was scanned", identity=content.identity)
    return _vouched(finding, scanner)


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


def _check_size(size: int, scanner: Scanner) -> None:
    if size > scanner.largest_bytes:
        raise FaultError(Kind.TOO_LARGE, f"larger than ATTACHMENTS_LARGEST_BYTES, {scanner.largest_bytes}")


def _chunks(content: Content, scanner: Scanner, *takers: Callable[[memoryview], None]) -> Iterator[bytes]:
    """Yield all content, each chunk after the takers had it. Raise FaultError where it is larger than what is scanned."""
    ends_at = time.monotonic() + scanner.transfer_seconds
    buffer, size = memoryview(bytearray(CHUNK_BYTES)), 0
    while length := content.read_into(buffer):
        if time.monotonic() > ends_at:
            raise StorageUnavailableError(
                f"the content did not arrive whole: it took longer than {scanner.transfer_seconds:g} s"
            )
        if scanner.stop():
            raise StoppedError
        size += length
        _check_size(size, scanner)
        for take in takers:
            take(buffer[:length])
        yield bytes(buffer[:length])


def _through(attachment: Attachment, content: Content, scanner: Scanner, version: Version) -> Finding:
    """Send everything to clamd, once; return the finding of clamd and of the other checks."""
    fitness, sha256 = scanner.fitness(version), hashlib.sha256()
    with scanner.clamd.stream() as stream, archives.stored(_chunks(content, scanner, sha256.update, stream.send)) as data:
        # clamd begins to scan at the end of the stream: content that it knows already is never ended, and so not scanned.
        age = min(KNOWN_SECONDS, time.monotonic() - fitness.since)
        # A row that had a verdict and is scanned again asks for a true scan.
        known = None if attachment.forced or not version.database else scanner.known(sha256.hexdigest(), version, age)
        found = known or _judge(stream, data, scanner, fitness)
        return replace(
            found,
            reason=found.reason[:255],
            engine=version.engine,
            database_version=version.database,
            sha256=sha256.hexdigest(),
            size=len(data),
            identity=content.identity,
        )


def _judge(stream: Stream, data: formats.Data, scanner: Scanner, fitness: Fitness) -> Finding:
    """Return the verdict of clamd, and of a look inside at what it calls OK."""
    until = time.monotonic() + scanner.clamd.scan_seconds

    def scan_inside(found: formats.Data) -> None:
        pieces = archives.pieces(found, 0, len(found))
        _believe(scannable.answer(scanner.clamd, pieces, seconds=max(0.1, until - time.monotonic())))

    try:
        _believe(stream.finish())
        types = archives.look(data, scannable.most_inside(scanner.largest_bytes), scan_inside)
    except FaultError as fault:
        return Finding(fault.kind, str(fault), fault.signature)
    if refused := types & scanner.blocked:
        return Finding(Kind.REFUSED_TYPE, f"refused type: {', '.join(sorted(refused))} (ATTACHMENTS_BLOCKED_TYPES)")
    if closed := types - formats.LEAVES - fitness.opens - scanner.allowed:
        return Finding(Kind.NOT_OPENED, f"{', '.join(sorted(closed))}: not looked into")
    return Finding(Kind.CLEAN)


def _believe(reply: bytes) -> None:
    """Raise FaultError unless clamd says that it has found nothing."""
    kind, detail = read_reply(reply)
    if kind is Kind.OVER_LIMIT:
        raise FaultError(
            kind, f"clamd found {detail}; to let it look on, raise {detail.rpartition('.')[2]} in clamd.conf", detail
        )
    if kind is not Kind.CLEAN:
        raise FaultError(kind, *((f"clamd found {detail}", detail) if kind in RELEASABLE else (detail,)))
