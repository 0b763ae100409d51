"""Look into content by its own structure: what all in it is, and what is forged, broken or encrypted though clamd says OK."""

import bz2
import lzma
import re
import struct
import tempfile
import zlib
from binascii import a2b_base64, a2b_qp
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from typing import Any

from tasks.attachments import seven_zip, zips
from tasks.attachments.formats import ANYWHERE, EXECUTABLE, HEAD_BYTES, MACROS, TAR_BLOCK, is_tar, types
from tasks.attachments.verdicts import FaultError, Kind

Data = bytes | mmap

# Expanders of whole streams, and of a zip's members by their method. The others are opened by no clamd.
STREAMS: dict[str, Callable[[], Any]] = {
    "gz": lambda: zlib.decompressobj(wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 28),
}
ZIP_MEMBERS: dict[int, Callable[[], Any]] = {8: lambda: zlib.decompressobj(wbits=-15), 12: bz2.BZ2Decompressor}
FIRST_STEP, STEP = 1 << 12, 1 << 18

# clamd's own limits are MaxRecursion (17) and MaxFiles (10,000). A bomb is clamd's to find; past this there is no more looking.
MOST_DEPTH = 17
MOST_MEMBERS = 20_000
MOST_BYTES = 512 << 20
# Each costs the same however little is in it, as do so many bytes of a 7z's directory. BGZF makes one of each 64 KB.
MOST_STREAMS = 100_000
DIRECTORY_BYTES = 100

SOMETHING = re.compile(rb"[^\0]")
PAX_SIZE = re.compile(rb"\d (?:size|GNU\.sparse\.\w+)=")
ODF_MANIFEST, ODF_ENCRYPTION = b"META-INF/manifest.xml", b"encryption-data"
ODF_MACROS = (b"Basic/", b"Scripts/")
# Streams that only encrypted files have, by their entry in the directory; the first bytes of an encrypted .ppt's, .xls's and
# .doc's own streams, which are never scattered and begin at so many bytes ([MS-CFB], [MS-OFFCRYPTO]).
OLE2_ENCRYPTED = {
    re.compile(pattern, re.DOTALL): alignment
    for pattern, alignment in (
        ("|".join(("EncryptedPackage", "EncryptedSummary", "\x09DRMContent")).encode("utf-16-le").replace(b"|\0", b"|"), 128),
        (rb"\0\0\xf6\x0f.{4}\x14\0{3}\xdf\xc4\xd1\xf3", 64),
        (rb"\x09\x08(?:\x08\0.{8}|\x10\0.{16})(?:\x86\0\0\0)?\x2f\0", 64),
        (rb"\xec\xa5(?:[\xc0-\xd9]\0|[\x01-\x12]\x01|[\x65-\x6a]\0).{7}[" + re.escape(bytes(range(1, 256, 2))) + b"]", 512),
    )
}
OLE2_MARKS = {
    MACROS: "_VBA_PROJECT".encode("utf-16-le"),
    EXECUTABLE: bytes.fromhex("84100c0000000000c000000000000046"),  # the class of Windows Installer's packages
}
# Each line bounded, and as many of them: a stranger's mail is searched.
MIME_BODY = re.compile(
    rb"\nContent-Transfer-Encoding:[ \t]{0,99}([bq])(?:ase64|uoted-printable)[^\n]{0,998}\n"
    rb"(?:[^\r\n][^\n]{0,998}\n){0,99}+\r?\n",
    re.IGNORECASE,
)
NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
DATA_URI = re.compile(rb"base64,([A-Za-z0-9+/]++)")
PDF_STREAM = re.compile(rb"stream\r?\n")
# A string in the inner dictionary of a stream, such as an attachment's checksum: over it clamd 1.4 loses the stream's filter.
PDF_INNER_STRING = re.compile(rb"/\w{1,100}+\s{0,20}+<<[^<>]{0,2000}+<[0-9A-Fa-f\s]{1,500}+>", re.DOTALL)


def look(data: Data, most_inside: int) -> set[str]:
    """Return the types of content and of all that is in it, and the methods that archives pack it with. Raise FaultError.

    A zip's members may have `most_inside` bytes together.
    """
    inside = _Inside(most_inside)
    inside.look(data, 0)
    return inside.types


class _Inside:
    """One look: what was found so far, and how much more may be looked at."""

    def __init__(self, most_inside: int) -> None:
        self.types: set[str] = set()
        self._most_inside = most_inside
        self._bytes, self._members, self._streams_left = MOST_BYTES, MOST_MEMBERS, MOST_STREAMS

    def look(self, data: Data, depth: int) -> None:
        """Add the types of this content, and of what is in it where that can be unpacked here."""
        if depth > MOST_DEPTH:
            raise FaultError(Kind.OVER_LIMIT, f"archives in archives, more than {MOST_DEPTH} deep")
        found = types(data[:HEAD_BYTES]) | {name for name, mark in ANYWHERE.items() if data.find(mark) >= 0}
        self.types |= found
        if "zip" not in found and zips.ends_as_zip(data[-zips.TAIL_BYTES :]):
            raise FaultError(Kind.BROKEN, "a zip behind other bytes")
        for name in found & WALKED:
            if name in STREAMS:
                self._member(self._streams(name, data), depth)
            else:
                WALKS[name](self, data, depth)

    def _member(self, chunks: Iterable[bytes], depth: int) -> None:
        """Look at a file in an archive."""
        self._members -= 1
        if self._members < 0:
            raise FaultError(Kind.OVER_LIMIT, f"more than {MOST_MEMBERS} files in archives")
        with stored(self._counted(chunks)) as data:
            self.look(data, depth + 1)

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._bytes -= len(chunk)
            if self._bytes < 0:
                raise FaultError(Kind.OVER_LIMIT, f"more than {MOST_BYTES} bytes in archives")
            yield chunk

    def _count(self, streams: int) -> None:
        self._streams_left -= streams
        if self._streams_left < 0:
            raise FaultError(Kind.OVER_LIMIT, f"more than {MOST_STREAMS} streams in archives")

    def _streams(self, name: str, data: Data) -> Iterator[bytes]:
        """Expand a gzip, bzip2 or xz, stream by stream, and see that each ends as it should."""
        at = 0
        while True:
            self._count(1)
            at = yield from _expanded(f"a {name}", STREAMS[name](), data, at, len(data))
            rest = SOMETHING.search(data, at)  # tapes and xz are padded with zeros
            if not rest or name not in types(data[rest.start() : rest.start() + HEAD_BYTES]):
                return _check_rest(f"a {name}", data, at)
            at = rest.start()
            self.types.add(f"{name} of several streams")

    def _tar(self, data: Data, depth: int) -> None:
        at = 0
        while any(header := data[at : at + TAR_BLOCK]):
            kind, told = header[156:157], header[124:136].strip(b" \0")
            if not is_tar(header) or not re.fullmatch(rb"[0-7]*", told):
                raise FaultError(Kind.BROKEN, "a tar with a header that clamd does not read")
            at, size = at + TAR_BLOCK, int(told or b"0", 8)
            if at + size > len(data):
                raise FaultError(Kind.BROKEN, "a tar without its end: cut short")
            if kind == b"S" or (kind in b"123456" and size) or (kind in b"xg" and PAX_SIZE.search(data, at, at + size)):
                raise FaultError(Kind.BROKEN, "a tar with sizes that clamd does not read")
            if size:
                self._member(_pieces(data, at, at + size), depth)
            at += -(-size // TAR_BLOCK) * TAR_BLOCK
        _check_rest("a tar", data, at)

    def _zip(self, data: Data, depth: int) -> None:
        for member in zips.members(data, self._most_inside):
            self.types.add(f"zip {zips.METHODS.get(member.method, member.method)}")
            if member.name.endswith(b"vbaProject.bin") or b"/macrosheets/" in member.name or member.name.startswith(ODF_MACROS):
                self.types.add(MACROS)
            if member.flags & zips.ENCRYPTED or member.method not in {0, *ZIP_MEMBERS}:
                continue  # the first is clamd's to say, the second is opened by none
            begin, stop = member.begin, member.begin + member.packed_bytes
            make = ZIP_MEMBERS.get(member.method)
            content = _expanded("a zip's member", make(), data, begin, stop) if make else _pieces(data, begin, stop)
            if member.name == ODF_MANIFEST:
                text = b"".join(self._counted(content))
                if ODF_ENCRYPTION in text:
                    raise FaultError(Kind.ENCRYPTED, "an encrypted OpenDocument file")
                content = iter([text])
            self._member(content, depth)

    def _seven_zip(self, data: Data, depth: int) -> None:
        at = data.find(ANYWHERE["7z"])
        while at >= 0:
            self._count(1)
            if not at or seven_zip.begins(data, at):  # else it is a constant of a program
                try:
                    for folder in seven_zip.folders(data, at, self._count_directory):
                        self._folder(data, folder, depth)
                except (ValueError, IndexError, struct.error, lzma.LZMAError, EOFError):
                    raise FaultError(Kind.BROKEN, "a 7z that does not expand: cut short, or packed unusually") from None
            at = data.find(ANYWHERE["7z"], at + 1)

    def _folder(self, data: Data, folder: seven_zip.Folder, depth: int) -> None:
        self.types |= {f"7z {method}" for method, _ in folder.coders}
        if sum(folder.sizes) > self._bytes:
            raise FaultError(Kind.OVER_LIMIT, f"more than {MOST_BYTES} bytes in archives")
        chunks = seven_zip.expanded(data, folder)
        if chunks is None:
            self.types.add("7z of another packing")
            return
        with stored(self._counted(chunks)) as content:
            at = 0
            for size in folder.sizes:
                self._member(_pieces(content, at, at + size), depth)
                at += size

    def _count_directory(self, size: int) -> None:
        self._count(size // DIRECTORY_BYTES + 1)

    def _ole2(self, data: Data, _depth: int) -> None:
        if any(found.start() % alignment == 0 for mark, alignment in OLE2_ENCRYPTED.items() for found in mark.finditer(data)):
            raise FaultError(Kind.ENCRYPTED, "an encrypted Office document")
        self.types |= {name for name, mark in OLE2_MARKS.items() if data.find(mark) >= 0}

    def _mail(self, data: Data, depth: int) -> None:
        bodies = list(MIME_BODY.finditer(data))
        for found, stop in zip(bodies, (*(body.start() for body in bodies[1:]), len(data)), strict=False):
            end = data.find(b"\n--", found.end(), stop)
            body = data[found.end() : end if end >= 0 else stop]
            self._member([a2b_qp(body) if found[1] in b"Qq" else _from_base64(body)], depth)

    def _html(self, data: Data, depth: int) -> None:
        for found in DATA_URI.finditer(data):
            self._member([_from_base64(found[1])], depth)

    def _pdf(self, data: Data, depth: int) -> None:
        for begin in PDF_STREAM.finditer(data):
            self._count(1)
            with stored(self._counted(_inflated(data, begin.end()))) as content:
                if content:
                    self.look(content, depth + 1)
        stream = end = -1
        for found in PDF_INNER_STRING.finditer(data):
            stream = stream if stream > found.end() else data.find(b"stream", found.end())
            end = end if end > found.end() else data.find(b"endobj", found.end())
            if stream < 0 or end < 0:
                return
            if stream < end:
                self.types.add("pdf attachment with a checksum")
                return


WALKS: dict[str, Callable[[_Inside, Data, int], None]] = {
    "tar": _Inside._tar,
    "zip": _Inside._zip,
    "7z": _Inside._seven_zip,
    "ole2": _Inside._ole2,
    "pdf": _Inside._pdf,
    "mail": _Inside._mail,
    "html": _Inside._html,
}
WALKED = frozenset({*STREAMS, *WALKS})
"""The types that a look is worth keeping the content for."""


@contextmanager
def stored(chunks: Iterable[bytes]) -> Iterator[Data]:
    """Yield all chunks as one: one chunk as it is, more from a temporary file."""
    chunks = iter(chunks)
    first, second = next(chunks, b""), next(chunks, None)
    if second is None:
        yield first
        return
    with tempfile.TemporaryFile() as file:
        file.writelines((first, second))
        file.writelines(chunks)
        file.flush()
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            yield data


def _expanded(what: str, expander: Any, data: Data, at: int, stop: int) -> Generator[bytes, None, int]:
    """Yield what is packed from `at` on; return where it ends. Raise FaultError if it does not end as it should."""
    pending, step = b"", FIRST_STEP
    while not expander.eof:
        hungry = not pending and getattr(expander, "needs_input", True)
        if hungry:
            pending = data[at : min(at + step, stop)]
            at, step = at + len(pending), min(2 * step, STEP)
        starved = hungry and not pending
        try:
            found = expander.decompress(pending, STEP)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
            raise FaultError(Kind.BROKEN, f"{what} that does not expand: broken") from None
        if starved and not found:
            raise FaultError(Kind.BROKEN, f"{what} without its end: cut short")
        pending = getattr(expander, "unconsumed_tail", b"")
        if found:
            yield found
    return at - len(expander.unused_data)


def _from_base64(text: bytes) -> bytes:
    letters = NO_BASE64.sub(b"", text)
    return a2b_base64(letters[: len(letters) - (len(letters) % 4 == 1)] + b"==")


def _inflated(data: Data, at: int) -> Iterator[bytes]:
    """Yield a stream of a PDF as far as it expands: what is packed otherwise is clamd's alone."""
    with suppress(FaultError):
        yield from _expanded("a stream", zlib.decompressobj(), data, at, len(data))


def _pieces(data: Data, at: int, stop: int) -> Iterator[bytes]:
    return (data[start : min(start + STEP, stop)] for start in range(at, stop, STEP))


def _check_rest(what: str, data: Data, at: int) -> None:
    """Raise FaultError if an archive lies behind the end of another: clamd does not look there."""
    rest = SOMETHING.search(data, at)
    if rest and (found := types(data[rest.start() : rest.start() + HEAD_BYTES])):
        raise FaultError(Kind.BROKEN, f"{what} with {', '.join(sorted(found))} behind its end")
