"""Read from a 7z's directory the methods that its members are packed with (7zFormat.txt of the LZMA SDK)."""

import lzma
import struct
from collections.abc import Callable
from mmap import mmap

# Signature, version, CRC, then offset and size of the directory.
START = struct.Struct("<6s2sLQQL")
END, DIRECTORY, MAIN_STREAMS, FILES, PACKS, FOLDERS, SIZES, CRCS, FOLDER, UNPACKED_SIZES, PACKED_DIRECTORY = (
    *(0x00, 0x01, 0x04, 0x05, 0x06, 0x07, 0x09, 0x0A, 0x0B, 0x0C, 0x17),
)
MOST_DIRECTORY = 1 << 20
MOST = 10_000
MOST_CODERS = 32
METHODS = {
    "00": "Copy", "03": "Delta", "04": "BCJ", "0a": "ARM64", "21": "LZMA2", "030101": "LZMA", "03030103": "BCJ",
    "0303011b": "BCJ2", "03030205": "PowerPC", "03030501": "ARM", "03030701": "ARMT", "030401": "PPMd", "040108": "Deflate",
    "040109": "Deflate64", "040202": "BZip2", "06f10701": "AES",
}  # fmt: skip

Coder = tuple[str, bytes]


def methods(data: bytes | mmap, count: Callable[[int], None]) -> set[str]:
    """Return the names of all methods of a 7z; `count` is told the bytes of each directory before it is read, and may raise.

    Raise ValueError where the directory is cut short, too large, or none.
    """
    try:
        *_, offset, length, _ = START.unpack_from(data)
        directory = data[START.size + offset :][:length] if offset + length <= len(data) - START.size else b""
        for _ in range(4 if length else 0):  # each directory may be packed, with a smaller one that says how
            if len(directory) > MOST_DIRECTORY:
                raise ValueError
            count(len(directory))
            reader = _Reader(directory)
            kind = reader.number()
            if kind == DIRECTORY:
                return {name for coders in reader.members() for name, _ in coders}
            place, packed = reader.packs() if kind == PACKED_DIRECTORY else (0, [])
            [((name, told),)], size = reader.folders(), reader.number()
            packing, dictionary = struct.unpack("<BL", told)
            if name != "LZMA" or size > MOST_DIRECTORY or len(packed) != 1 or packed[0] >= len(data):
                raise ValueError
            options = {
                "lc": packing % 9,
                "lp": packing // 9 % 5,
                "pb": packing // 45,
                "dict_size": min(dictionary, MOST_DIRECTORY),
            }
            expander = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, **options}])
            directory = expander.decompress(data[START.size + place :][: packed[0]], size)
    except (struct.error, IndexError, lzma.LZMAError, EOFError):
        raise ValueError("no directory of a 7z") from None
    if length:
        raise ValueError("a directory packed again and again")
    return set()


class _Reader:
    """A directory, read from its beginning on. Raise ValueError or IndexError where it is none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

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

    def packs(self) -> tuple[int, list[int]]:
        """Read where the packed streams begin, and their sizes."""
        if self.number() != PACKS:
            raise ValueError
        place, count, sizes = self.number(), self._count(), list[int]()
        while (kind := self.number()) != END:
            if kind == SIZES:
                sizes = [self.number() for _ in range(count)]
            elif kind == CRCS:
                marked = count if self._take(1) == b"\1" else sum(map(int.bit_count, self._take((count + 7) // 8)))
                self._take(4 * marked)
            else:
                raise ValueError
        return place, sizes

    def folders(self) -> set[tuple[Coder, ...]]:
        """Read the coders of all kinds of folders, their names and properties, up to the unpacked sizes."""
        if (self.number(), self.number()) != (FOLDERS, FOLDER):
            raise ValueError
        count, elsewhere = self._count(), self.number()
        folders = {self._folder() for _ in range(count)}
        if elsewhere or self.number() != UNPACKED_SIZES:
            raise ValueError
        return folders

    def _folder(self) -> tuple[Coder, ...]:
        coders, streams_in, streams_out = list[Coder](), 0, 0
        for _ in range(self._count(MOST_CODERS)):
            (flags,) = self._take(1)
            method = self._take(flags & 0x0F).hex()
            ins, outs = (self._count(MOST_CODERS), self._count(MOST_CODERS)) if flags & 0x10 else (1, 1)
            streams_in, streams_out = streams_in + ins, streams_out + outs
            coders.append((METHODS.get(method, method), self._take(self._count()) if flags & 0x20 else b""))
        packed = streams_in - (streams_out - 1)
        for _ in range(2 * (streams_out - 1) + (packed if packed > 1 else 0)):
            self.number()
        return tuple(coders)

    def members(self) -> set[tuple[Coder, ...]]:
        """Read the coders of the members; an archive of empty files has none."""
        kind = self.number()
        if kind in {END, FILES}:
            return set()
        if kind != MAIN_STREAMS:
            raise ValueError
        if self._data[self._at] == PACKS:
            self.packs()
        return self.folders()
