"""Check by its own structure that an archive is whole: clamd says OK for one that is cut short, though it saw nothing."""

import struct
import zlib
from typing import NamedTuple

from tasks.attachments.verdicts import Kind

# A zip ends with its directory, the directory's end record and a comment of up to 65,535 bytes (APPNOTE.TXT 4.3.16).
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
ZIP_END = struct.Struct("<4s4H2LH")
ZIP_END_MAGIC = b"PK\x05\x06"
# Holds the directory of 10,000 members; clamd gives up at so many (MaxFiles).
ZIP_TAIL = 2 << 20
ZIP64_END = struct.Struct("<4sQ2H2L4Q4sLQL")
"""With its locator behind it."""
ZIP64_END_MAGICS = (b"PK\x06\x06", b"PK\x06\x07")
ZIP_MEMBER = struct.Struct("<4s6H3L3H8xL")
ZIP_MEMBER_MAGIC = b"PK\x01\x02"
# A member's own header: magic, version, flags, method, times, checksum, size. clamd goes by this method, and by this size
# unless a flag says that it follows the member; other programs go by the directory's.
ZIP_LOCAL = struct.Struct("<4s2xHH8xL")
ZIP_SIZE_FOLLOWS = 1 << 3
ZIP_MOST_LOCALS = 20_000
# Stored, imploded, deflated, deflate64, bzip2; clamd passes over LZMA, Zstandard and all others.
ZIP_METHODS = {0, 6, 8, 9, 12}
ELSEWHERE = 0xFFFFFFFF
"""In place of a member's size: it stands in a zip64 field, which clamd does not read."""

GZIP = b"\x1f\x8b\x08"
GZIP_STEP = 1 << 20
# A bomb is clamd's to find; past this ratio and size there is no more looking here.
GZIP_MOST_BYTES = 512 << 20
# Each costs the same however little is in it. BGZF makes one of each 64 KB.
GZIP_MOST_MEMBERS = 100_000

# Signature, version, CRC, then offset and size of the next header (7zFormat.txt).
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"
SEVEN_ZIP_START = struct.Struct("<6s2sLQQL")
HEAD_BYTES = SEVEN_ZIP_START.size


class Fault(NamedTuple):
    """The reason why an archive cannot count as scanned."""

    kind: Kind
    reason: str


class Whole:
    """Content whose end is not looked at."""

    def feed(self, chunk: memoryview) -> None:
        """Take the next piece of content."""

    def fault(self, size: int, most_inside: int) -> Fault | None:  # noqa: ARG002 - nothing to see here
        """Return the fault of content of `size` bytes, if any. Its members may have `most_inside` bytes together."""
        return None


class Zip(Whole):
    """A zip, or one of the many formats that are one: docx, xlsx, odt, jar, apk, epub. Or anything that ends as one.

    Many programs look for the directory from the end, whatever the content begins with, and find it wherever it is; clamd goes
    by the offsets of the first zip format, and where they lead to nothing says OK.
    """

    def __init__(self, *, begins: bool = True) -> None:
        """`begins` says that the content begins as a zip, so that it must be one."""
        self._begins = begins
        self._tail = bytearray()
        self._members: dict[int, tuple[int, int, int]] = {}
        self._read = 0
        self._cut = b""

    def feed(self, chunk: memoryview) -> None:
        data = self._cut + bytes(chunk)
        start, at = self._read - len(self._cut), data.find(ZIP[0])
        while 0 <= at <= len(data) - ZIP_LOCAL.size and len(self._members) < ZIP_MOST_LOCALS:
            self._members[start + at] = ZIP_LOCAL.unpack_from(data, at)[1:]
            at = data.find(ZIP[0], at + 1)
        self._cut = data[1 - ZIP_LOCAL.size :]
        self._read += len(chunk)
        self._tail += chunk
        if len(self._tail) > ZIP_TAIL + (1 << 20):  # not with each chunk
            del self._tail[:-ZIP_TAIL]

    def fault(self, size: int, most_inside: int) -> Fault | None:
        last = len(self._tail) - ZIP_END.size
        at = self._tail.rfind(ZIP_END_MAGIC, max(0, last - 0xFFFF), max(0, last + len(ZIP_END_MAGIC)))
        if at < 0:
            return Fault(Kind.BROKEN, "a zip without its directory: cut short") if self._begins else None
        length, offset, comment = ZIP_END.unpack_from(self._tail, at)[5:]
        if not self._begins and comment < last - at:
            return None  # the end of a zip within a tar, say, which clamd unpacks
        at -= self._zip64_end(at, length, offset)
        if length + offset != size - len(self._tail) + at:
            return Fault(Kind.BROKEN, "a zip whose directory is not where it says")
        if length > at:
            return Fault(Kind.OVER_LIMIT, f"a zip with a directory of more than {ZIP_TAIL} bytes")
        inflated = _inflated(bytes(self._tail[at - length : at]), self._members)
        if inflated is None:
            return Fault(Kind.BROKEN, "a zip with members that clamd does not find or inflate")
        if inflated > most_inside:
            return Fault(Kind.OVER_LIMIT, f"a zip of more than {most_inside} bytes inside")
        return None

    def _zip64_end(self, at: int, length: int, offset: int) -> int:
        """Return the bytes of the zip64 end record before the other, 0 unless both say the same of the directory."""
        if at < ZIP64_END.size:
            return 0
        record = ZIP64_END.unpack_from(self._tail, at - ZIP64_END.size)
        same = (record[0], record[10]) == ZIP64_END_MAGICS and record[8:10] == (length, offset)
        return ZIP64_END.size if same else 0


def _inflated(directory: bytes, members: dict[int, tuple[int, int, int]]) -> int | None:
    """Return the size of all members by a zip's directory, in bytes; None where it is none, or clamd would miss a member.

    `members` are flags, method and size of their own headers, by offset.
    """
    total = at = 0
    while len(directory) - at >= ZIP_MEMBER.size and directory.startswith(ZIP_MEMBER_MAGIC, at):
        _, _, _, _, method, *_, deflated, inflated, name, extra, comment, offset = ZIP_MEMBER.unpack_from(directory, at)
        flags, own_method, own_size = members.get(offset, (0, -1, 0))
        same = own_method == method and (flags & ZIP_SIZE_FOLLOWS or own_size == deflated)
        if deflated == ELSEWHERE or not same or method not in ZIP_METHODS:
            return None
        total += inflated
        at += ZIP_MEMBER.size + name + extra + comment
    return total if at == len(directory) else None


class Gzip(Zip):
    """One or more gzip members, inflated to see that each ends with its checksum."""

    def __init__(self) -> None:
        super().__init__(begins=False)
        self._inflater = zlib.decompressobj(wbits=31)
        self._inflated = 0
        self._begun = 1
        self._broken = False
        self._padded = False

    def feed(self, chunk: memoryview) -> None:
        super().feed(chunk)
        self._broken |= self._padded and any(chunk)
        data: bytes | memoryview = chunk if not self._broken else b""
        try:
            while len(data) and not self._padded and self._inflated < GZIP_MOST_BYTES and self._begun <= GZIP_MOST_MEMBERS:
                if self._inflater.eof:
                    if bytes(data[:1]) == b"\0":
                        self._padded = True  # tapes are padded with zeros; gunzip ignores what follows, clamd too
                        self._broken = any(data)
                        return
                    self._inflater = zlib.decompressobj(wbits=31)
                    self._begun += 1
                self._inflated += len(self._inflater.decompress(data, GZIP_STEP))
                data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
        except zlib.error:
            self._broken = True

    def fault(self, size: int, most_inside: int) -> Fault | None:
        if self._broken:
            return Fault(Kind.BROKEN, "a gzip that does not inflate: broken")
        if self._begun > GZIP_MOST_MEMBERS:
            return Fault(Kind.OVER_LIMIT, f"a gzip of more than {GZIP_MOST_MEMBERS} members")
        if self._inflater.eof or self._padded or self._inflated >= GZIP_MOST_BYTES:
            return super().fault(size, most_inside)
        return Fault(Kind.BROKEN, "a gzip without its end: cut short")


class SevenZip(Zip):
    """A 7z archive: its first bytes say where its directory is."""

    def __init__(self, head: bytes) -> None:
        super().__init__(begins=False)
        self._head = head

    def fault(self, size: int, most_inside: int) -> Fault | None:
        if len(self._head) >= SEVEN_ZIP_START.size:
            offset, length = SEVEN_ZIP_START.unpack_from(self._head)[3:5]
            if SEVEN_ZIP_START.size + offset + length <= size:
                return super().fault(size, most_inside)
        return Fault(Kind.BROKEN, "a 7z without its directory: cut short")


def look(head: bytes) -> Whole:
    """Return the watcher of content that begins with `head`: HEAD_BYTES, or all of it."""
    if head.startswith(ZIP):
        return Zip()
    if head.startswith(GZIP):
        return Gzip()
    if head.startswith(SEVEN_ZIP):
        return SevenZip(head)
    return Zip(begins=False)
