"""Read a 7z's directory: what its members are packed with, and their content (7zFormat.txt of the LZMA SDK)."""

import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import Any, NamedTuple

# Signature, version, CRC, then offset and size of the directory.
START = struct.Struct("<6s2sLQQL")
END, DIRECTORY, MAIN_STREAMS, FILES, PACKS, FOLDERS, MEMBERS, SIZES, CRCS, FOLDER, UNPACKED_SIZES, COUNTS, PACKED_DIRECTORY = (
    *(0x00, 0x01, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x17),
)
MOST_DIRECTORY = 1 << 20
MOST = 10_000
MOST_CODERS = 32
METHODS = {
    "00": "Copy", "03": "Delta", "04": "BCJ", "0a": "ARM64", "21": "LZMA2", "030101": "LZMA", "03030103": "BCJ",
    "0303011b": "BCJ2", "03030205": "PowerPC", "03030501": "ARM", "03030701": "ARMT", "030401": "PPMd", "040108": "Deflate",
    "040109": "Deflate64", "040202": "BZip2", "06f10701": "AES",
}  # fmt: skip

BRANCHES = {
    "BCJ": lzma.FILTER_X86, "PowerPC": lzma.FILTER_POWERPC, "ARM": lzma.FILTER_ARM, "ARMT": lzma.FILTER_ARMTHUMB,
}  # fmt: skip
PACKERS = {lzma.FILTER_LZMA1, lzma.FILTER_LZMA2}
STEP = 1 << 18
# So many bytes a branch filter holds back until it is told of the end, which LZMA does not know.
HELD_BACK = 8

Data = bytes | mmap


class Folder(NamedTuple):
    """Members that are packed as one: by which coders, where, and how large each member is."""

    coders: list[tuple[str, bytes]]
    begin: int
    sizes: list[int]


def begins(data: Data, at: int) -> bool:
    """Return whether a 7z begins there, and not a text or program that only names its mark: by the checksum behind it."""
    return len(data) >= at + START.size and zlib.crc32(data[at + 12 : at + START.size]) == START.unpack_from(data, at)[2]


def folders(data: Data, at: int, count: Callable[[int], None]) -> list[Folder]:
    """Return what the 7z at this place holds; `count` is told the bytes of each directory, and may raise.

    Raise ValueError where the directory is cut short, too large, or none.
    """
    try:
        *_, offset, length, _ = START.unpack_from(data, at)
        start = at + START.size
        directory = data[start + offset : start + offset + length] if length <= MOST_DIRECTORY else b""
        if len(directory) < length:
            raise ValueError("the directory is cut short or too large")
        count(length)
        reader = _Reader(directory or bytes([DIRECTORY, END]), start)
        kind = reader.number()
        if kind == PACKED_DIRECTORY:
            [packed] = reader.streams()
            [size] = packed.sizes
            if size > MOST_DIRECTORY:
                raise ValueError("the directory is too large")
            count(size)
            reader = _Reader(b"".join(expanded(data, packed) or ()), start)
            kind = reader.number()
        if kind != DIRECTORY:
            raise ValueError("no directory, or one packed again and again")
        return reader.members()
    except (struct.error, IndexError, lzma.LZMAError, EOFError):
        raise ValueError("no directory of a 7z") from None


def expanded(data: Data, folder: Folder) -> Iterator[bytes] | None:
    """Return the members' content, one behind the other, None where it is not packed by LZMA. It raises LZMAError, EOFError."""
    size, filters = sum(folder.sizes), list[dict[str, Any]]()
    for name, told in folder.coders:
        if name == "LZMA":
            packing, dictionary = struct.unpack("<BL", told)
            bits = {"lc": packing % 9, "lp": packing // 9 % 5, "pb": packing // 45}
            filters.append({"id": lzma.FILTER_LZMA1, "dict_size": max(4096, min(dictionary, size)), **bits})
        elif name == "LZMA2":
            dictionary = (2 | told[0] & 1) << (told[0] // 2 + 11)
            filters.append({"id": lzma.FILTER_LZMA2, "dict_size": max(4096, min(dictionary, size))})
        elif name == "Delta":
            filters.append({"id": lzma.FILTER_DELTA, "dist": told[0] + 1})
        elif name in BRANCHES:
            filters.append({"id": BRANCHES[name]})
        elif name != "Copy":
            return None
    filters.sort(key=lambda each: each["id"] in PACKERS)  # directories name them in either order
    if len(filters) > 2 or (filters and filters[-1]["id"] not in PACKERS):
        return None
    return _expanded(data, folder.begin, size, filters)


def _expanded(data: Data, at: int, size: int, filters: list[dict[str, Any]]) -> Iterator[bytes]:
    expander = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters) if filters else None
    while size > 0:
        packed = data[at : at + STEP] if not expander or expander.needs_input else b""
        found = expander.decompress(packed, min(size, STEP)) if expander else packed[:size]
        if not found and not packed:
            if size > HELD_BACK or len(filters) < 2:
                raise EOFError
            found = bytes(size)
        at, size = at + len(packed), size - len(found)
        yield found


class _Reader:
    """A directory, read from its beginning on. Raise ValueError or IndexError where it is none."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._at = 0
        self._start = start

    def _take(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if len(found) < length:
            raise IndexError
        self._at += length
        return found

    def number(self) -> int:
        """Return a number of one to nine bytes: the first one's leading bits tell how many."""
        (first,) = self._take(1)
        more = 8 - (~first & 0xFF).bit_length()
        return int.from_bytes(self._take(more), "little") + ((first & (0x7F >> more)) << 8 * more)

    def _count(self, most: int = MOST) -> int:
        if (count := self.number()) > most:
            raise ValueError
        return count

    def members(self) -> list[Folder]:
        """Read the members' folders; an archive of empty files has none."""
        kind = self.number()
        if kind not in {END, FILES, MAIN_STREAMS}:
            raise ValueError
        return self.streams() if kind == MAIN_STREAMS else []

    def streams(self) -> list[Folder]:
        """Read where packed streams begin, how they are packed, and the sizes of the members in them."""
        begin, packs, kind = self._start, list[int](), self.number()
        if kind == PACKS:
            begin, count = begin + self.number(), self._count()
            while (kind := self.number()) != END:
                if kind == SIZES:
                    packs = [self.number() for _ in range(count)]
                else:
                    self._checksums(kind, count)
            kind = self.number()
        if (kind, self.number()) != (FOLDERS, FOLDER):
            raise ValueError
        count, elsewhere = self._count(), self.number()
        coded = [self._folder() for _ in range(count)]
        if elsewhere or self.number() != UNPACKED_SIZES:
            raise ValueError
        unpacked = [[self.number() for _ in range(outs)] for _, _, outs in coded]
        if (kind := self.number()) != END:
            self._checksums(kind, count)
            kind = self.number()
        found, sizes = [], self._sizes([max(each) for each in unpacked])
        for (coders, used, _), each in zip(coded, sizes, strict=True):
            found.append(Folder(coders, begin, each))
            begin, packs = begin + sum(packs[:used]), packs[used:]
        return found

    def _sizes(self, unpacked: list[int]) -> list[list[int]]:
        """Read how the content of each folder is cut into members: into one where nothing is said."""
        if (kind := self.number()) != MEMBERS:
            return [[size] for size in unpacked]
        counts = [1] * len(unpacked)
        if (kind := self.number()) == COUNTS:
            counts, kind = [self._count() for _ in unpacked], self.number()
        sizes = []
        for size, count in zip(unpacked, counts, strict=True):
            told = [self.number() for _ in range(count - 1)] if kind == SIZES else []
            if sum(told) > size:
                raise ValueError
            sizes.append([*told, size - sum(told)] if count else [])
        return sizes

    def _checksums(self, kind: int, count: int) -> None:
        if kind != CRCS:
            raise ValueError
        self._take(4 * (count if self._take(1) == b"\1" else sum(map(int.bit_count, self._take((count + 7) // 8)))))

    def _folder(self) -> tuple[list[tuple[str, bytes]], int, int]:
        """Read a folder's coders; return them, and how many packed streams and sizes it has."""
        coders, streams_in, streams_out = list[tuple[str, bytes]](), 0, 0
        for _ in range(self._count(MOST_CODERS)):
            (flags,) = self._take(1)
            method = self._take(flags & 0x0F).hex()
            ins, outs = (self._count(MOST_CODERS), self._count(MOST_CODERS)) if flags & 0x10 else (1, 1)
            streams_in, streams_out = streams_in + ins, streams_out + outs
            coders.append((METHODS.get(method, method), self._take(self._count()) if flags & 0x20 else b""))
        packed = streams_in - (streams_out - 1)
        for _ in range(2 * (streams_out - 1) + (packed if packed > 1 else 0)):
            self.number()
        return coders, packed, streams_out
