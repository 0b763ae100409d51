"""Test whether clamd's configuration makes its OK worth anything, with files that it must not call OK.

clamd does not tell its configuration, and it may be another machine's. With its defaults it answers OK for what it did not look
at: files over its limits and encrypted ones (clamd.conf(5), AlertExceedsMax and AlertEncrypted).
"""

import base64
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import structlog

from tasks.attachments import formats
from tasks.attachments.clamd import AnsweredEarlyError, Clamd, ClamdUnavailableError, Version
from tasks.attachments.verdicts import Kind, read_reply

log = structlog.get_logger(__name__)

TESTED_SECONDS = 3600
PROBES = Path(__file__).with_name("probes.tsv")
"""EICAR in each format and packing method that clamd may open, compressed and in base85 (tests/attachments/make_probes.py)."""
LIMITS = Path(__file__).with_name("limits.tsv")
"""In the same form what clamd must not call OK: a zip under a password, EICAR deeper in zips than any MaxRecursion, and a bomb
larger than any MaxFileSize, up to which clamd inflates and says nothing of the rest, unless MaxScanSize is exceeded by then."""
# The harmless file that every scanner must find, in two parts so that no scanner finds it here: https://www.eicar.org
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
CHUNK = 256 * 1024


class Fault(NamedTuple):
    """A fault of clamd's configuration. `fatal`: its OK means nothing, so nothing is scanned until it is put right."""

    sentence: str
    fatal: bool


class UnfitError(ClamdUnavailableError):
    """clamd's OK means nothing by its configuration: nothing is scanned."""


class Fitness(NamedTuple):
    """The formats and methods that one version of clamd opens, as it has shown at a monotonic time.

    A verdict on the same bytes is taken over only if it is younger: signatures may come without a version, and set-ups change.
    """

    opens: frozenset[str]
    tested_at: float


# The versions that have passed in this process; several may answer at one address.
_tested: dict[Version, Fitness] = {}
_testing = threading.Lock()


def fitness(clamd: Clamd, version: Version, largest_bytes: int) -> Fitness:
    """Return what this version of clamd opens, tested within the hour. Raise UnfitError, ClamdUnavailableError."""
    with _testing:
        found = _tested.get(version)
        if found is None or time.monotonic() > found.tested_at + TESTED_SECONDS:
            found = _tested[version] = _test(clamd, largest_bytes)
        return found


def forget() -> None:
    """Test anew next time: clamd has failed, and may come back with another configuration."""
    _tested.clear()


def _test(clamd: Clamd, largest_bytes: int) -> Fitness:
    tested_at, found = time.monotonic(), faults(clamd, largest_bytes)
    for fault in found:
        (log.error if fault.fatal else log.warning)(fault.sentence)
    if fatal := [fault.sentence for fault in found if fault.fatal]:
        raise UnfitError(fatal[0])
    return Fitness(frozenset(name for name, finds in opened(clamd).items() if finds), tested_at)


def faults(clamd: Clamd, largest_bytes: int) -> list[Fault]:
    """Return clamd's faults for files of up to `largest_bytes`. Raise ClamdUnavailableError."""
    if ask(clamd, [EICAR]) is not Kind.INFECTED:
        return [Fault("clamd does not know the EICAR test file: it has no signatures; run freshclam and look at its log", True)]
    found, limits = [], samples(LIMITS)
    if ask(clamd, [limits["nested"]]) not in {Kind.INFECTED, Kind.OVER_LIMIT, Kind.ENCRYPTED}:
        found.append(Fault('clamd says OK for what exceeds its limits; set "AlertExceedsMax yes" in clamd.conf', True))
    if ask(clamd, [limits["encrypted"]]) is not Kind.ENCRYPTED:
        found.append(Fault('clamd says OK for encrypted files; set "AlertEncrypted yes" in clamd.conf', True))
    if found:
        return found
    stream, inside = -(-largest_bytes // 2**20), -(-most_inside(largest_bytes) // 2**20)
    lines = f'"StreamMaxLength {stream}M", "MaxFileSize {inside}M", "MaxScanSize {inside}M"'
    if (largest := ask(clamd, padded(largest_bytes))) is not Kind.INFECTED:
        text = f"clamd does not scan files as large as ATTACHMENTS_LARGEST_BYTES ({largest_bytes}); set {lines} in clamd.conf"
        # Where it says that it could not look, nothing slips through: such files are blocked.
        found.append(Fault(text, fatal=largest not in {Kind.TOO_LARGE, Kind.OVER_LIMIT}))
    if ask(clamd, [limits["bomb"]]) is Kind.CLEAN:
        text = f"clamd says OK for archives that it scans only the beginning of: MaxFileSize is below MaxScanSize; set {lines}"
        found.append(Fault(text, fatal=True))
    return found


def opened(clamd: Clamd) -> dict[str, bool]:
    """Return of each format that may hold files whether clamd finds EICAR in a sample of it. Raise ClamdUnavailableError."""
    found = {name: _finds_eicar(clamd, probe) for name, probe in samples(PROBES).items()}
    return {name: found.get(name, False) for name in sorted({*found, *formats.NAMES - formats.LEAVES})}


def _finds_eicar(clamd: Clamd, probe: bytes) -> bool:
    """Raise ClamdUnavailableError for the answer of a clamd in trouble, which says nothing about the format."""
    reply = answer(clamd, [probe])
    kind, detail = read_reply(reply)
    if not reply or kind in {Kind.CLAMD, Kind.STORAGE} or detail.endswith(".MaxScanTime"):
        raise ClamdUnavailableError(f"clamd said {reply[:120]!r} to a sample with EICAR")
    return kind is Kind.INFECTED


@cache
def samples(path: Path) -> dict[str, bytes]:
    """Return the samples that a file holds, by the name of their format."""
    lines = (line.split("\t") for line in path.read_text().splitlines())
    return {name: zlib.decompress(base64.b85decode(probe)) for name, probe in lines}


def most_inside(largest_bytes: int) -> int:
    """Return how many bytes the members of an archive may have together; clamd knows no file above 2 GB."""
    return max(largest_bytes, min(4 * largest_bytes, 2000 * 2**20))


def ask(clamd: Clamd, chunks: Iterable[bytes], *, seconds: float | None = None) -> Kind:
    """Return clamd's verdict on this content. Raise ClamdUnavailableError."""
    return read_reply(answer(clamd, chunks, seconds=seconds))[0]


def answer(clamd: Clamd, chunks: Iterable[bytes], *, seconds: float | None = None) -> bytes:
    """Return clamd's reply to this content. Raise ClamdUnavailableError."""
    try:
        with clamd.stream(seconds=seconds) as stream:
            for chunk in chunks:
                stream.send(chunk)
            return stream.finish()
    except AnsweredEarlyError as early:
        return bytes(early.args[0])


def padded(size: int) -> Iterator[bytes]:
    """Yield a zip of exactly so many bytes whose one member, EICAR, lies at its end, after a hole."""
    with tempfile.TemporaryFile() as file:
        padding = zipfile.ZipInfo("padding")
        padding.CRC = 0
        file.write(padding.FileHeader())
        file.truncate(size - len(samples(PROBES)["zip stored"]))
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("eicar.com", EICAR)
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk
