"""Read a zip's directory and see that its members' own headers agree and lie side by side: all programs must see the same.

Programs read a zip from its directory or from its beginning, forgive this and that, and differ. A forged one shows clamd other
content than it shows to who opens it; what is as APPNOTE.TXT says, from the first byte on, shows all programs the same.
"""

import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tasks.attachments.formats import Data, find
from tasks.attachments.verdicts import FaultError, Kind

LOCAL_MAGIC, MEMBER_MAGIC, END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
LOCAL = struct.Struct("<4s2x2H8x2L2H")
MOST_HEADER_BYTES = LOCAL.size + 2 * 0xFFFF
MEMBER = struct.Struct("<4s4x2H8x2L3H8xL")
END = struct.Struct("<4s4x2H2LH")
TAIL_BYTES = 1 << 17
"""A directory's end lies so near to the content's for all programs: behind it are 64 KB of comment, and more that they bear."""
ZIP64_END = struct.Struct("<4sQ2H2L4Q4sLQL")
"""With its locator behind it."""
ZIP64_LOCATOR_BYTES = 20
ZIP64_END_MAGICS = (b"PK\x06\x06", b"PK\x06\x07")
MAGICS = re.compile(b"|".join((LOCAL_MAGIC, MEMBER_MAGIC, END_MAGIC, *ZIP64_END_MAGICS)))

ENCRYPTED, SIZE_FOLLOWS = 1 << 0, 1 << 3
# Those two, the deflater's effort, and names in UTF-8.
KNOWN_FLAGS = 0x080F
METHODS = {0: "stored", 8: "Deflate", 9: "Deflate64", 12: "BZip2", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd", 99: "AES"}
ELSEWHERE = 0xFFFFFFFF
"""In place of a member's size: it stands in a zip64 field, which clamd does not read."""
FOLLOWING_BYTES = {12, 16, 20, 24}
"""Checksum and sizes behind a member, of 4 or 8 bytes each, with or without a mark."""
FOLLOWING = re.compile(rb"PK\x07\x08(?=(.{4}))", re.DOTALL)
APK_SIGNATURES = b"APK Sig Block 42"


class Member(NamedTuple):
    """A file in a zip, as the directory lists it; its own header and its packed bytes begin at these places."""

    header: int
    name: bytes
    flags: int
    method: int
    packed_bytes: int
    unpacked_bytes: int
    begin: int = 0


def from_the_end(data: Data) -> Iterator[tuple[int, int, int]]:
    """Yield where each zip, its directory and its end begin that programs may find in content from its end.

    The first is below 0 of one whose directory is not where it should be, but where its end says. Raise FaultError.
    """
    at = find(data, END_MAGIC, max(0, len(data) - TAIL_BYTES))
    while 0 <= at <= len(data) - END.size:
        *_, count, length, offset, _ = END.unpack_from(data, at)
        directory = at - _zip64_end(data, at, count, length, offset) - length
        if data[directory : directory + 4] == MEMBER_MAGIC:
            yield directory - offset, directory, at
        elif data[offset : offset + 4] == MEMBER_MAGIC:
            yield -1, 0, 0
        at = find(data, END_MAGIC, at + 1)


def listed(data: Data, begin: int, directory: int, end: int) -> Iterator[tuple[Member, bytes]]:
    """Yield the members that programs find by a directory in an Office file, where zips lie in pieces, and their bytes."""
    for member in _directory(data[directory:end]):
        header = begin + member.header
        if header >= 0 and data[header : header + len(LOCAL_MAGIC)] == LOCAL_MAGIC:
            if member.flags & ENCRYPTED:
                raise FaultError(Kind.ENCRYPTED, "an encrypted zip in an Office file")
            own = data[header : header + MOST_HEADER_BYTES + member.packed_bytes]
            yield next(_tiled(own, [member._replace(header=0)], len(own))), own


def members(data: Data, most_inside: int) -> list[Member]:
    """Return the members of a zip; together they may have `most_inside` bytes. Raise FaultError."""
    at = data.rfind(END_MAGIC)
    if at < 0 or at + END.size > len(data):
        raise FaultError(Kind.BROKEN, "a zip without its directory: cut short")
    _, _, count, length, offset, _ = END.unpack_from(data, at)
    directory_end = at - _zip64_end(data, at, count, length, offset)
    if length + offset != directory_end:
        raise FaultError(Kind.BROKEN, "a zip whose directory is not where it says")
    found = _directory(data[offset:directory_end])
    if len(found) != count:
        raise FaultError(Kind.BROKEN, "a zip with members that clamd does not find")
    if sum(member.unpacked_bytes for member in found) > most_inside:
        raise FaultError(Kind.OVER_LIMIT, f"a zip of more than {most_inside} bytes inside")
    return list(_tiled(data, sorted(found), offset))


def refuse_another(between: Data, members: int) -> None:
    """Raise FaultError if what is between a zip's members, as names, fields and comments, holds parts of another."""
    own = {LOCAL_MAGIC: members, MEMBER_MAGIC: members, END_MAGIC: 1, **dict.fromkeys(ZIP64_END_MAGICS, 1)}
    if Counter(found[0] for found in MAGICS.finditer(between)) - Counter(own):
        raise FaultError(Kind.BROKEN, "a zip with parts of another in or behind it")


def _zip64_end(data: Data, at: int, count: int, length: int, offset: int) -> int:
    """Return the bytes of the zip64 end record before the other, if any. Raise FaultError unless both and its locator agree."""
    if data[max(0, at - ZIP64_LOCATOR_BYTES) : at][:4] != ZIP64_END_MAGICS[1]:
        return 0
    begin = at - ZIP64_END.size
    record = ZIP64_END.unpack_from(data, begin) if begin >= 0 else ()
    same = (0, 0, count, count, length, offset, ZIP64_END_MAGICS[1], 0, begin, 1)
    if record[:2] != (ZIP64_END_MAGICS[0], 44) or record[4:] != same or offset + length != begin:
        raise FaultError(Kind.BROKEN, "a zip with two directories")
    return ZIP64_END.size


def _directory(directory: bytes) -> list[Member]:
    found, at = list[Member](), 0
    while directory.startswith(MEMBER_MAGIC, at) and at + MEMBER.size <= len(directory):
        _, flags, method, packed, unpacked, name, extra, comment, offset = MEMBER.unpack_from(directory, at)
        at += MEMBER.size
        found.append(Member(offset, directory[at : at + name], flags, method, packed, unpacked))
        at += name + extra + comment
        if ELSEWHERE in {packed, unpacked, offset}:
            raise FaultError(Kind.BROKEN, "a zip with sizes that clamd does not read")
    if at != len(directory):
        raise FaultError(Kind.BROKEN, "a zip whose directory is none")
    return found


def _tiled(data: Data, members: list[Member], directory: int) -> Iterator[Member]:
    """Yield the members in their order, if nothing but they lies before the directory and their own headers agree with it."""
    end, follows = 0, False
    for member in members:
        offset, _, flags, method, packed, unpacked, _ = member
        _check_gap(data[end:offset], end, offset, follows=follows)
        if data[offset : offset + 4] != LOCAL_MAGIC or offset + LOCAL.size > directory:
            raise FaultError(Kind.BROKEN, "a zip with members that clamd does not find")
        _, own_flags, own_method, *own_sizes, name_bytes, extra = LOCAL.unpack_from(data, offset)
        begin = offset + LOCAL.size + name_bytes + extra
        end, follows = begin + packed, bool(own_flags & SIZE_FOLLOWS)
        same_size = own_sizes == [packed, unpacked] or (follows and own_sizes == [0, 0])
        same_size &= packed == unpacked or method != 0 or flags & ENCRYPTED > 0
        if (flags | own_flags) & ~KNOWN_FLAGS:
            raise FaultError(Kind.BROKEN, "a zip with flags over which clamd leaves members out")
        if own_method != method or (own_flags ^ flags) & ENCRYPTED or not same_size or end > directory:
            raise FaultError(Kind.BROKEN, "a zip whose members' own headers say another size or method than its directory")
        if follows and method == 0:
            _refuse_early_end(data, begin, end)
        yield member._replace(begin=begin)
    gap = data[end:directory]
    if not gap.endswith(APK_SIGNATURES):
        _check_gap(gap, end, directory, follows=follows)


def _refuse_early_end(data: Data, begin: int, end: int) -> None:
    """Raise FaultError if libarchive, which may not read the directory, ends a stored member before its end: at a checksum."""
    checksum = 0
    for found in FOLLOWING.finditer(data, begin, end + 7):  # all but what begins at the end
        checksum, begin = zlib.crc32(memoryview(data)[begin : found.start()], checksum), found.start()
        if found[1] == checksum.to_bytes(4, "little"):
            raise FaultError(Kind.BROKEN, "a zip with a member that seems to end within")


def _check_gap(gap: bytes, end: int, offset: int, *, follows: bool) -> None:
    if offset < end:
        raise FaultError(Kind.BROKEN, "a zip with members that lie over each other")
    if gap.strip(b"\0") and not (follows and len(gap) in FOLLOWING_BYTES):
        raise FaultError(Kind.BROKEN, "a zip with bytes that its directory does not list")
