"""Read the streams of an OLE2 file, wherever their sectors lie, and what Office keeps in them.

[MS-CFB], [MS-OFFCRYPTO], [MS-OLEDS], [MS-PPT].
"""

import re
import struct
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice

from tasks.attachments.formats import Data

# The log of a sector's bytes; how many sectors the FAT has; the first sectors of the directory, of the small streams' FAT and
# of the list of the FAT's own sectors; the beginning of that list.
HEADER = struct.Struct("<30xH12xLL8xL4xL4x109L")
# Version, order of bytes, sizes of sectors and of what is small: clamd does not unpack a file with others, most programs do.
STRICT = re.compile(rb".{26}[\3\4]\0\xfe\xff[\x09\x0c]\0\x06\0{7}.{16}\0\x10\0\0", re.DOTALL)
NAME = re.compile(rb"(?:(?!\0\0)..)+\0\0", re.DOTALL)
ENTRY = struct.Struct("<64sHB49xLQ")
SECTOR_BYTES, SMALL_SECTOR_BYTES, SMALL = {9: 512, 12: 4096}, 64, 4096
STORAGE, STREAM, ROOT, LISTED = 1, 2, 5, 109

# What the streams of encrypted documents begin with; some are only there.
ENCRYPTED = {
    "encryptedpackage": rb"",
    "encryptedsummary": rb"",
    "\x09drmcontent": rb"",
    "current user": rb".{12}\xdf\xc4\xd1\xf3",
    "powerpoint document": rb".*?\x0f\0\x14\x2f",
    "worddocument": rb"[\xec\xdc]\xa5.{9}[" + re.escape(bytes(range(1, 256, 2))) + b"]",
}
WORKBOOKS, FILE_PASS, END_OF_SHEET = {"workbook", "book"}, 0x2F, 0x0A
# What is attached to a mail, or embedded as it is; other streams are parts of a document.
FILE = re.compile(r"__substg1\.0_37010102|package|contents")
# A file that was dropped into a document has its names and path before it, then its size.
PACKAGE = re.compile(rb"\A.{4}\x02\0[^\0]{0,999}\0[^\0]{0,999}\0.{8}[^\0]{0,999}\0(.{4})", re.DOTALL)
# What is embedded in a presentation: a flag, the record's type and size, then as it is, or its size and packed.
OBJECT = re.compile(rb"\0\0\x11\x10.{4}(?=\xd0\xcf\x11\xe0)|\x10\0\x11\x10.{8}(?=x)", re.DOTALL)


def streams(data: Data) -> Iterator[tuple[str, bytes]]:
    """Yield each stream's name, in small letters, and its content. Raise ValueError if clamd may read no header or directory.

    No table is read longer than a file of this length needs it, whatever the file says.
    """
    if len(data) < HEADER.size or not STRICT.match(data):
        raise ValueError
    shift, fat_sectors, directory, small_fat, more, *own = HEADER.unpack_from(data)
    size = SECTOR_BYTES[shift]
    most = -(-len(data) // size) - 1
    seen: set[int] = set()
    while more < most and more not in seen and len(own) * size < most * 4:
        seen.add(more)
        *also, more = _numbers([_piece(data, size, more + 1)])
        own = [each for each in (*own, *also) if each < most]
    fat = _numbers(_piece(data, size, each + 1) for each in own[: -(-most * 4 // size)] if each < most)

    entries = (entry for sector in _chain(data, size, fat, directory, 1) for entry in ENTRY.iter_unpack(sector))
    root = next(entries, None)
    if root is None:
        return
    small = b"".join(_chain(data, size, fat, root[3], 1))
    small_chains = _numbers(islice(_chain(data, size, fat, small_fat, 1), len(small) // SMALL_SECTOR_BYTES * 4 // size + 1))
    if _is_odd(root, ROOT) or min(fat_sectors, LISTED) != min(sum(each < most for each in own), LISTED):
        raise ValueError
    for entry in entries:
        name, name_bytes, kind, begin, length = entry
        if kind and _is_odd(entry, STORAGE, STREAM):
            raise ValueError
        if kind == STREAM:
            length &= 0xFFFFFFFF if shift == 9 else -1  # the other half is not always zero
            large = length >= SMALL
            chain = _chain(data, size, fat, begin, 1) if large else _chain(small, SMALL_SECTOR_BYTES, small_chains, begin, 0)
            content = b"".join(islice(chain, -(-length // (size if large else SMALL_SECTOR_BYTES))))[:length]
            yield name[: name_bytes - 2].decode("utf-16-le", "replace").lower(), content


def _is_odd(entry: tuple[bytes, int, int, int, int], *kinds: int) -> bool:
    name, name_bytes, kind, *_ = entry
    return kind not in kinds or name_bytes > len(name) or not NAME.fullmatch(name[:name_bytes])


def _piece(data: Data, size: int, number: int) -> bytes:
    return data[number * size : (number + 1) * size].ljust(size, b"\xff")


def _numbers(pieces: Iterable[bytes]) -> "array[int]":
    return array("I", b"".join(pieces))


def _chain(data: Data, size: int, links: "array[int]", number: int, behind: int) -> Iterator[bytes]:
    """Yield what lies in a chain of sectors, `behind` so many others, as far as it goes; no more than there are."""
    for _ in range(-(-len(data) // size)):
        if number >= len(links):
            return
        yield _piece(data, size, number + behind)
        number = links[number]


def is_encrypted(name: str, content: bytes) -> bool:
    """Return whether a stream, by its name in small letters, is one of an encrypted document."""
    if name not in WORKBOOKS:
        return name in ENCRYPTED and re.match(ENCRYPTED[name], content, re.DOTALL) is not None
    at, kind = 0, 0
    while at + 4 <= len(content) and kind not in {FILE_PASS, END_OF_SHEET}:
        kind, length = struct.unpack_from("<2H", content, at)
        at += 4 + length
    return kind == FILE_PASS
