"""Scan one attachment: read it once through clamd and a hash, and trust the verdict only if the file is still the same."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, NamedTuple

from sqlalchemy import Engine

from settings import Settings
from tasks.attachments import formats, looks, queue, scannable
from tasks.attachments.clamd import (
    AnsweredEarlyError,
    BrokeOffError,
    Clamd,
    ClamdAwayError,
    ClamdUnavailableError,
    Stream,
    Version,
)
from tasks.attachments.looks import StoppedError
from tasks.attachments.quarantine import Quarantine
from tasks.attachments.scannable import EICAR
from tasks.attachments.settlement import Attachment
from tasks.attachments.storage.base import Content, MissingError, RefusedError, Storage, StorageUnavailableError
from tasks.attachments.verdicts import RELEASABLE, FaultError, Finding, Kind, read_reply
from tasks.shutdown import stop_requested

# So many claims without a result mean that the content itself ends clamd or its worker, or is never done with.
MOST_CLAIMS = 5
# How soon a clamd that broke off over one file must be done with a harmless one.
CONTROL_SECONDS = 30.0
# A file of another length than its row's may still be on its way, or a page stands for it; later it is scanned as it is.
UNLIKE_TRIES = 2


class Scanner(NamedTuple):
    """The means of a scan."""

    settings: Settings
    engine: Engine
    storage: Storage
    quarantine: Quarantine | None
    clamd: Clamd


def scan(attachment: Attachment, scanner: Scanner) -> Finding:
    """Return the finding of one try. Raise StoppedError; all other trouble with file, storage or clamd is a finding too."""
    try:
        if attachment.claims > MOST_CLAIMS:
            return _deadly(attachment, scanner)
        finding = _scan(attachment, scanner)
    except FaultError as fault:
        return Finding(fault.kind, str(fault))
    except RefusedError as error:
        return Finding(Kind.REFUSED, str(error))
    except MissingError as error:
        gone = None if "://" in attachment.quarantine else queue.moved(scanner.engine, attachment.file_url)
        return gone or Finding(Kind.MISSING, str(error))
    except (StorageUnavailableError, ClamdUnavailableError) as error:
        if stop_requested():
            raise StoppedError from None  # connections are cut then
        if isinstance(error, StorageUnavailableError):
            return Finding(Kind.STORAGE, str(error))
        finding = Finding(Kind.FAILED if isinstance(error, BrokeOffError) else Kind.CLAMD, str(error))
    if finding.kind in {Kind.FAILED, Kind.CLAMD}:
        scanner.clamd.forget_version()
    return replace(finding, kind=_charged(scanner)) if finding.kind is Kind.FAILED else finding


def _charged(scanner: Scanner, when_away: Kind = Kind.FAILED) -> Kind:
    """Return whose failure it is that clamd broke off: the file's, unless clamd does not get on with a harmless file either."""
    try:
        answer = scannable.ask(scanner.clamd, [EICAR], seconds=CONTROL_SECONDS)
    except ClamdAwayError:
        return when_away  # it may have ended of this file; one that was only restarted is harmless when it is tried again
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
        return _vouched(Finding(Kind.DEADLY, reason, sha256=sha256.hexdigest(), size=size), scanner)


def _vouched(finding: Finding, scanner: Scanner) -> Finding:
    if finding.kind in RELEASABLE and finding.sha256 and queue.released(scanner.engine, finding.sha256):
        found = finding.signature or finding.reason
        return replace(finding, kind=Kind.RELEASED, reason=f"released by a person; clamd found {found}"[:255])
    return finding


def _scan(attachment: Attachment, scanner: Scanner) -> Finding:
    with scanner.storage.open(attachment.file_url) as content:
        _check_is_whole(attachment, content.size)
        _check_size(content.size or 0, scanner)
        version = scanner.clamd.version()
        try:
            finding = _through(attachment, content, scanner, version)
        except AnsweredEarlyError as early:
            return Finding(*read_reply(early.args[0]))
        except OSError as error:
            raise StorageUnavailableError(f"the temporary folder takes no more: {error.strerror}") from None
        if not scanner.storage.still_is(attachment.file_url, content, finding.sha256 or ""):
            return Finding(Kind.CHANGED, "the content changed while it was scanned")
    if finding.kind is Kind.CLEAN:
        _check_is_whole(attachment, finding.size)
    return _vouched(finding, scanner)


def _check_is_whole(attachment: Attachment, size: int | None) -> None:
    """Raise MissingError, in the first tries, for another size than the row's: of what is on its way, or a page."""
    if size is None or not attachment.file_size or size == attachment.file_size:
        return
    if attachment.attempts < UNLIKE_TRIES or not size:
        raise MissingError(f"the file has {size} bytes, and {attachment.file_size} by its row's file_size")


def _check_size(size: int, scanner: Scanner) -> None:
    if size > (most := scanner.settings.attachments_largest_bytes):
        raise FaultError(Kind.TOO_LARGE, f"larger than ATTACHMENTS_LARGEST_BYTES, {most}")


def _chunks(content: Content, scanner: Scanner, *takers: Callable[[bytes], None]) -> Iterator[bytes]:
    """Yield all content, each chunk after the takers had it. Raise FaultError where it is larger than what is scanned."""
    began_at, size, seconds = time.monotonic(), 0, scanner.settings.attachments_transfer_seconds
    for chunk in content.pieces:
        if time.monotonic() > began_at + seconds:
            raise StorageUnavailableError(f"the content did not arrive whole: it took longer than {seconds:g} s")
        if stop_requested():
            raise StoppedError
        size += len(chunk)
        _check_size(size, scanner)
        for take in takers:
            take(chunk)
        yield chunk


def _through(attachment: Attachment, content: Content, scanner: Scanner, version: Version) -> Finding:
    """Send everything to clamd, once; return the finding of clamd and of the other checks."""
    fitness = scannable.fitness(scanner.clamd, version, scanner.settings.attachments_largest_bytes)
    sha256 = hashlib.sha256()
    with scanner.clamd.stream() as stream, tempfile.TemporaryFile() as file:
        file.writelines(_chunks(content, scanner, sha256.update, stream.send))
        file.flush()
        # clamd begins to scan at the end of the stream: content that it knows already is never ended, and so not scanned.
        digest, age = sha256.hexdigest(), time.monotonic() - fitness.tested_at
        # A row that had a verdict and is scanned again asks for a true scan.
        known = None if attachment.forced or not version.database else queue.known(scanner.engine, digest, version, age)
        found = known or _judge(stream, file, scanner, fitness.opens)
        return replace(
            found,
            reason=found.reason[:255],
            engine=version.engine,
            database_version=version.database,
            sha256=digest,
            size=file.tell(),
            identity=content.identity[:255],
        )


def _judge(stream: Stream, file: IO[bytes], scanner: Scanner, opens: frozenset[str]) -> Finding:
    """Return the verdict of clamd, and of a look inside at what it calls OK."""

    left = looks.CLAMD_SECONDS

    def scan_inside(chunks: Iterator[bytes]) -> None:
        nonlocal left
        began_at = time.monotonic()
        try:
            _believe(scannable.answer(scanner.clamd, chunks, seconds=left))
        except BrokeOffError:
            if time.monotonic() < began_at + left or _charged(scanner, when_away=Kind.CLAMD) is Kind.CLAMD:
                raise
            reason = f"more in it than clamd scans in {looks.CLAMD_SECONDS:g} s"
            raise FaultError(Kind.OVER_LIMIT, reason) from None
        left -= time.monotonic() - began_at

    try:
        _believe(stream.finish())
        most_inside = scannable.most_inside(scanner.settings.attachments_largest_bytes)
        types = looks.look(file, most_inside, scan_inside, scanner.clamd.scan_seconds)
    except FaultError as fault:
        return Finding(fault.kind, str(fault), fault.signature)
    if refused := types.intersection(scanner.settings.attachments_blocked_types):
        return Finding(Kind.REFUSED_TYPE, f"refused type: {', '.join(sorted(refused))} (ATTACHMENTS_BLOCKED_TYPES)")
    if closed := types - formats.LEAVES - opens - set(scanner.settings.attachments_allowed_types):
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
