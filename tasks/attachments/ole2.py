"""Read the streams of an OLE2 file, wherever their sectors lie, and what Office keeps in them.

[MS-CFB], [MS-OFFCRYPTO], [MS-OLEDS], [MS-PPT].
"""

import re
import struct
from collections.abc import Iterator

from tasks.attachments.formats import Data

# The log of a sector's bytes; the first sectors of the directory, of the small streams' FAT and of the list of the FAT's own
# sectors; the beginning of that list.
HEADER = struct.Struct("<30xH16xL8xL4xL4x109L")
ENTRY = struct.Struct("<64sHB49xLQ")
SECTOR_BYTES, SMALL_SECTOR_BYTES, SMALL = {9: 512, 12: 4096}, 64, 4096
STREAM = 2

# What the streams of encrypted documents begin with; some are only there.
ENCRYPTED = {
    name: re.compile(pattern, re.DOTALL)
    for name, pattern in {
        "encryptedpackage": rb"",
        "encryptedsummary": rb"",
        "\x09drmcontent": rb"",
        "current user": rb".{12}\xdf\xc4\xd1\xf3",
        "workbook": rb"\x09\x08(?:\x08\0.{8}|\x10\0.{16})(?:\x86\0\0\0)?\x2f\0",
        "worddocument": rb"\xec\xa5.{9}[" + re.escape(bytes(range(1, 256, 2))) + b"]",
    }.items()
}
# A file that was dropped into a document has its names and path before it, then its size.
PACKAGE = re.compile(rb"\A.{4}\x02\0[^\0]{0,999}\0[^\0]{0,999}\0.{8}[^\0]{0,999}\0(.{4})", re.DOTALL)
# What is embedded in a presentation: a flag, the record's type and size, then as it is, or its size and packed.
OBJECT = re.compile(rb"\0\0\x11\x10.{4}(?=\xd0\xcf\x11\xe0)|\x10\0\x11\x10.{8}(?=x)", re.DOTALL)


def streams(data: Data) -> Iterator[tuple[str, bytes]]:
    """Yield each stream's name, in small letters, and its content. Raise struct.error or KeyError where there is no header."""
    shift, directory, small_fat, more, *own = HEADER.unpack_from(data)
    size = SECTOR_BYTES[shift]
    sectors = data[size:] + b"\xff" * (-len(data) % size)
    most = len(sectors) // size
    for _ in range(most):
        if more < most:
            *also, more = _numbers(sectors[more * size : (more + 1) * size])
            own += also
    fat = _numbers(b"".join(sectors[each * size : (each + 1) * size] for each in dict.fromkeys(own) if each < most))
    small_chains = _numbers(_read(sectors, size, fat, small_fat))
    entries = list(ENTRY.iter_unpack(_read(sectors, size, fat, directory)))
    small = _read(sectors, size, fat, entries[0][3]) if entries else b""
    for name, name_bytes, kind, begin, length in entries:
        if kind == STREAM:
            length &= 0xFFFFFFFF if shift == 9 else -1  # the other half is not always zero
            where = (sectors, size, fat) if length >= SMALL else (small, SMALL_SECTOR_BYTES, small_chains)
            yield name[: max(0, name_bytes - 2)].decode("utf-16-le", "replace").lower(), _read(*where, begin, length)


def _numbers(table: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(table) // 4}L", table)


def _read(sectors: bytes, size: int, fat: tuple[int, ...], number: int, length: int | None = None) -> bytes:
    """Return what lies in a chain of sectors, as far as it goes and once at most in each."""
    found, left = list[bytes](), len(sectors) // size if length is None else min(len(sectors), length + size - 1) // size
    while number < len(fat) and left > 0:
        found.append(sectors[number * size : (number + 1) * size])
        number, left = fat[number], left - 1
    return b"".join(found)[:length]
