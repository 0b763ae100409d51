"""Check by its own structure that an archive is whole: clamd says OK for one that is cut short, though it saw nothing."""

import struct
import zlib
from typing import NamedTuple

from tasks.attachments.verdicts import Kind

# A zip ends with its directory's end record and a comment of up to 65,535 bytes (APPNOTE.TXT 4.3.16).
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
ZIP_END = struct.Struct("<4s4H2LH")
ZIP_END_MAGIC = b"PK\x05\x06"
ZIP_TAIL = ZIP_END.size + 0xFFFF
ZIP64_LOCATOR = b"PK\x06\x07"
ZIP64_LOCATOR_BYTES = 20
ZIP_MEMBER = struct.Struct("<4s6H3L3H12x")
ZIP_MEMBER_MAGIC = b"PK\x01\x02"

GZIP = b"\x1f\x8b\x08"
GZIP_STEP = 1 << 20
# A bomb is clamd's to find; past this ratio and size there is no more looking here.
GZIP_MOST_BYTES = 512 << 20

# Signature, version, CRC, then offset and size of the next header (7zFormat.txt).
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
SEVEN_ZIP_START = struct.Struct("<6s2sLQQL")
HEAD_BYTES = SEVEN_ZIP_START.size


class Fault(NamedTuple):
    """The reason why an archive cannot count as scanned."""

    kind: Kind
    reason: str


class Whole:
    """Content that is no archive we know, or one without a mark at its end."""

    def feed(self, chunk: memoryview) -> None:
        """Take the next piece of content."""

    def fault(self, size: int, most_inside: int) -> Fault | None:  # noqa: ARG002 - nothing to see here
        """Return the fault of content of `size` bytes, if any. Its members may have `most_inside` bytes together."""
        return None


class Zip(Whole):
    """A zip, or one of the many formats that are one: docx, xlsx, odt, jar, apk, epub."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, chunk: memoryview) -> None:
        self._tail = (self._tail + bytes(chunk[-ZIP_TAIL:]))[-ZIP_TAIL:]

    def fault(self, size: int, most_inside: int) -> Fault | None:
        at = self._tail.rfind(ZIP_END_MAGIC)
        if at < 0 or len(self._tail) - at < ZIP_END.size:
            return Fault(Kind.BROKEN, "a zip without its directory: cut short")
        length, offset = ZIP_END.unpack_from(self._tail, at)[5:7]
        end = size - len(self._tail) + at
        zip64 = self._tail[max(0, at - ZIP64_LOCATOR_BYTES) : at].startswith(ZIP64_LOCATOR)
        if length + offset != end and not zip64:
            # Many programs look for the directory and find it all the same; clamd does not, and finds nothing inside.
            return Fault(Kind.BROKEN, "a zip whose directory is not where it says")
        if _inflated(self._tail[max(0, at - length) : at]) > most_inside:
            return Fault(Kind.OVER_LIMIT, f"a zip of more than {most_inside} bytes inside")
        return None


def _inflated(directory: bytes) -> int:
    """Return the size of all members by a zip's directory, in bytes, as far as it can be read."""
    total = at = 0
    while len(directory) - at >= ZIP_MEMBER.size and directory.startswith(ZIP_MEMBER_MAGIC, at):
        _, *_, inflated, name, extra, comment = ZIP_MEMBER.unpack_from(directory, at)
        total += inflated
        at += ZIP_MEMBER.size + name + extra + comment
    return total


class Gzip(Whole):
    """One or more gzip members, inflated to see that each ends with its checksum."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=31)
        self._inflated = 0
        self._broken = False
        self._padded = False

    def feed(self, chunk: memoryview) -> None:
        data: bytes | memoryview = chunk
        try:
            while len(data) and not self._broken and not self._padded and self._inflated < GZIP_MOST_BYTES:
                if self._inflater.eof:
                    if bytes(data[:1]) == b"\0":
                        self._padded = True  # tapes are padded with zeros, and gunzip ignores what follows
                        return
                    self._inflater = zlib.decompressobj(wbits=31)
                self._inflated += len(self._inflater.decompress(data, GZIP_STEP))
                data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        except zlib.error:
            self._broken = True

    def fault(self, size: int, most_inside: int) -> Fault | None:  # noqa: ARG002 - a bomb is clamd's to find
        if self._broken:
            return Fault(Kind.BROKEN, "a gzip that does not inflate: broken")
        if self._inflater.eof or self._padded or self._inflated >= GZIP_MOST_BYTES:
            return None
        return Fault(Kind.BROKEN, "a gzip without its end: cut short")


class SevenZip(Whole):
    """A 7z archive: its first bytes say where its directory is."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def fault(self, size: int, most_inside: int) -> Fault | None:  # noqa: ARG002 - a bomb is clamd's to find
        if len(self._head) >= SEVEN_ZIP_START.size:
            offset, length = SEVEN_ZIP_START.unpack_from(self._head)[3:5]
            if SEVEN_ZIP_START.size + offset + length <= size:
                return None
        return Fault(Kind.BROKEN, "a 7z without its directory: cut short")


def look(head: bytes) -> Whole:
    """Return the watcher of content that begins with `head`: HEAD_BYTES, or all of it."""
    if head.startswith(ZIP):
        return Zip()
    if head.startswith(GZIP):
        return Gzip()
    if head.startswith(SEVEN_ZIP):
        return SevenZip(head)
    return Whole()
