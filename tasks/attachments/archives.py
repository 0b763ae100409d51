"""Look into content by its own structure: what all in it is, and what is forged, broken or encrypted though clamd says OK."""

import bz2
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from typing import Any

from tasks.attachments import formats, mails, ole2, pages, pdf, zips
from tasks.attachments.formats import EXECUTABLE, HEAD_BYTES, MACROS, TAR_BLOCK, Data, is_tar, types
from tasks.attachments.streams import (
    FIRST_STEP,
    STEP,
    as_far_as_it_goes,
    expanded,
    inflated,
    pieces,
    refuse_little_memory,
    stored,
)
from tasks.attachments.verdicts import FaultError, Kind

# Expanders of whole streams, and of a zip's members by their method. The others are opened by no clamd.
STREAMS: dict[str, Callable[[], Any]] = {
    "gz": lambda: zlib.decompressobj(wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}
ZIP_MEMBERS: dict[int, Callable[[], Any]] = {8: lambda: zlib.decompressobj(wbits=-15), 12: bz2.BZ2Decompressor}
# Of a gzip that begins by chance hardly one gives so much, and no file is found harmful by less.
SOME_BYTES, LONGEST_HEADER, FIRST_BLOCK = 48, 1 << 17, 1 << 10
GZ_CHECKSUM, GZ_EXTRA, GZ_NAME, GZ_COMMENT = 2, 4, 8, 16

# clamd's own limit is MaxRecursion (17). A bomb is clamd's to find; past this there is no more looking. CPU and memory are the
# kernel's to bound (`looks`): these are what the temporary folder and clamd are asked for.
MOST_DEPTH = 17
MOST = {"bytes": 512 << 20, "files in mails and documents": 5000}

SOMETHING = re.compile(rb"[^\0]")
# Files, extended headers and long names; links, devices and labels, without a size. Programs differ over all others.
TAR_SIZED, TAR_EMPTY = b"\x0007xgLKD", b"123456V"
# The keys of extended headers that change no bytes of a file, as sizes, holes and what is not known may.
PAX_KEY = re.compile(
    rb"(\d{1,9}) (?:(?:link)?path|[ug](?:id|name)|[amc]time|comment|(?:hdr)?charset|RHT\.security\.selinux|MSWINDOWS\.\w+"
    rb"|SCHILY\.(?:dev|ino|nlink|fflags|filetype|devmajor|devminor|acl\.\w+|xattr\.[^=\n]+)"
    rb"|LIBARCHIVE\.(?:creationtime|symlinktype|xattr\.[^=\n]+))="
)
# Of an encoding in which other letters may stand for these, too.
ODF_MANIFEST, ODF_ENCRYPTION = b"META-INF/manifest.xml", re.compile(rb"encryption-data|\0|encoding\s*=\s*[\"'](?!utf-8)", re.I)
ODF_MACROS = (b"Basic/", b"Scripts/")
OLE2_MARKS = {
    MACROS: re.compile(re.escape("_VBA_PROJECT".encode("utf-16-le")), re.IGNORECASE),
    # The class of Windows Installer's packages.
    EXECUTABLE: re.compile(re.escape(bytes.fromhex("84100c0000000000c000000000000046"))),
}


def look(data: Data, most_inside: int, scan: Callable[[Data], object]) -> set[str]:
    """Return the types of content and of all that is in it, and the methods that archives pack it with. Raise FaultError.

    A zip's members may have `most_inside` bytes together. `scan` has clamd scan what it may not find by itself, and may raise.
    """
    inside = _Inside(most_inside, scan)
    inside.look(data, 0)
    return inside.types


class _Inside:
    """One look: what was found so far, and how much more may be looked at."""

    def __init__(self, most_inside: int, scan: Callable[[Data], object]) -> None:
        self.types: set[str] = set()
        self._most_inside, self._scan = most_inside, scan
        self._left, self._seen = dict(MOST), set[tuple[bytes, bool, bool]]()

    def look(self, data: Data, depth: int, *, whole: bool = True) -> None:
        """Add the types of this content, a `whole` file or a part of one, and of all that is in it."""
        if depth > MOST_DEPTH:
            raise FaultError(Kind.OVER_LIMIT, f"archives in archives, more than {MOST_DEPTH} deep")
        found = types(data)
        if "pdf" in found and found & formats.TEXTS:
            raise FaultError(Kind.BROKEN, "a PDF behind other bytes")
        for begin, directory, end in zips.from_the_end(data) if whole and "zip" not in found else ():
            if "ole2" in found and end > directory:  # themes and shapes are zips
                for member, own in zips.listed(data, begin, directory, end):
                    self._zip_member(member, own, depth, alone=True)
            elif begin > 0 and "tar" in found:
                self._member(pieces(data, begin, end + zips.END.size), depth, alone=True)
            else:
                raise FaultError(Kind.BROKEN, "a zip behind other bytes")
        has_links = False
        for name, at in formats.behind(data):
            if name == "link":
                has_links = True
            elif name not in WALKED or (name == "pdf" and "ole2" in found):  # viewers open that one wherever it lies
                found.add(name)
            elif whole and name not in found and not found & formats.STORING:
                _refuse(name, data, at)
        if formats.WIDE.match(data):
            self._member((piece.translate(None, b"\0\xfe\xff") for piece in pieces(data, 0, len(data))), depth, whole=False)
        text = pages.is_text(data)
        if (text or "rtf" in found) and pages.EMBEDDED.search(data):
            found.add("embedded object")
        if text and not found and depth == 0 and pages.TAG.search(data):
            found.add("html")  # by its name a browser may take it for a page, whatever it begins with
        self.types |= found
        for name in found & WALKED | ({"html"} if text or has_links else set()):
            if name in STREAMS:
                self._member(self._streams(name, data), depth, alone=name != "gz")
            else:
                WALKS[name](self, data, depth)

    def _refuse_between(self, kind: str, data: Data, members: Iterable[tuple[int, int]]) -> None:
        """Raise FaultError if something begins in an archive's bytes that are in none of its members, which lie in order; but
        what it is itself, of which each member's header is the beginning.
        """
        end, gaps = 0, list[Iterator[bytes]]()
        for begin, stop in (*members, (len(data), 0)):
            gaps.append(pieces(data, end, begin))
            end = stop
        with stored(chain.from_iterable(gaps)) as between:
            if kind == "zip":
                zips.refuse_another(between, len(gaps) - 1)
            for name, at in formats.behind(between):
                if name in WALKED and name != kind:
                    _refuse(name, between, at)

    def _member(self, chunks: Iterable[bytes], depth: int, *, alone: bool = False, whole: bool = True) -> None:
        """Look at a file in another, unless the same was looked at; have it scanned `alone` where clamd may not unpack it."""
        with stored(self._counted(chunks)) as data:
            key = (sha256(data).digest(), alone, whole)
            if key in self._seen:
                return
            self._seen.add(key)
            if alone:
                self._count("files in mails and documents", 1)
                self._scan(data)
            self.look(data, depth + 1, whole=whole)

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._count("bytes", len(chunk))
            yield chunk

    def _count(self, what: str, more: int) -> None:
        self._left[what] -= more
        if self._left[what] < 0:
            raise FaultError(Kind.OVER_LIMIT, f"more than {MOST[what]} {what} in it")

    def _streams(self, name: str, data: Data) -> Iterator[bytes]:
        """Expand a gzip, bzip2 or xz, stream by stream, and see that each ends as it should."""
        at = 0
        while True:
            at = yield from expanded(f"a {name}", STREAMS[name](), data, at, len(data))
            rest = SOMETHING.search(data, at)  # tapes and xz are padded with zeros
            if not rest or name not in types(data[rest.start() : rest.start() + HEAD_BYTES]):
                return
            if name == "gz" and rest.start() > at:
                raise FaultError(Kind.BROKEN, "a gzip behind zeros")
            at = rest.start()

    def _tar(self, data: Data, depth: int) -> None:
        at, members = 0, list[tuple[int, int]]()
        while any(header := data[at : at + TAR_BLOCK]):
            kind, told = header[156:157], header[124:136].strip(b" \0")
            if not is_tar(header) or not re.fullmatch(rb"[0-7]*", told):
                raise FaultError(Kind.BROKEN, "a tar with a header that clamd does not read")
            at, size = at + TAR_BLOCK, int(told or b"0", 8)
            if at + size > len(data):
                raise FaultError(Kind.BROKEN, "a tar without its end: cut short")
            known = kind in TAR_SIZED or (kind in TAR_EMPTY and not size)
            if not known or (kind in b"xg" and not _is_plain(data, at, at + size)):
                raise FaultError(Kind.BROKEN, "a tar with sizes that clamd does not read")
            if size:
                self._member(pieces(data, at, at + size), depth)
                members.append((at, at + size))
            at += -(-size // TAR_BLOCK) * TAR_BLOCK
        if SOMETHING.search(data, at):
            raise FaultError(Kind.BROKEN, "a tar with bytes behind its end")
        # clamd ends at a header without a name or mark, and takes a tar whose first name begins like a picture for one.
        with stored(self._counted(_plain_tar(data, members))) as plain:
            self._scan(plain)
        self._refuse_between("tar", data, members)

    def _zip(self, data: Data, depth: int) -> None:
        members = zips.members(data, self._most_inside)
        self._refuse_between("zip", data, ((member.begin, member.begin + member.packed_bytes) for member in members))
        for member in members:
            if member.name.endswith(b"vbaProject.bin") or b"/macrosheets/" in member.name or member.name.startswith(ODF_MACROS):
                self.types.add(MACROS)
            self._zip_member(member, data, depth)

    def _zip_member(self, member: zips.Member, data: Data, depth: int, *, alone: bool = False) -> None:
        self.types.add(f"zip {zips.METHODS.get(member.method, member.method)}")
        if member.flags & zips.ENCRYPTED or member.method not in {0, *ZIP_MEMBERS}:
            return  # the first is clamd's to say, the second is opened by none
        begin, stop = member.begin, member.begin + member.packed_bytes
        make = ZIP_MEMBERS.get(member.method)
        content = _filling(make(), data, begin, stop) if make else pieces(data, begin, stop)
        content = as_far_as_it_goes(data, begin, stop) if alone and member.method == 8 else content
        self._member(_unencrypted(content) if member.name == ODF_MANIFEST else content, depth, alone=alone)

    def _ole2(self, data: Data, depth: int) -> None:
        self.types |= {name for name, mark in OLE2_MARKS.items() if mark.search(data)}
        try:
            for name, content in ole2.streams(data):
                if ole2.is_encrypted(name, content):
                    raise FaultError(Kind.ENCRYPTED, "an encrypted Office document")
                is_file = ole2.FILE.fullmatch(name) is not None
                self._member([content], depth, whole=is_file, alone=is_file)
                for found in ole2.PACKAGE.finditer(content):
                    self._member([content[found.end() :][: int.from_bytes(found[1], "little")]], depth, alone=True)
                for found in ole2.OBJECT.finditer(content):
                    packed = found[0].startswith(b"\x10")
                    self._member(inflated(content, found.end()) if packed else [content[found.end() :]], depth, alone=True)
        except ValueError:
            raise FaultError(Kind.BROKEN, "an OLE2 file with a header or directory that clamd does not read") from None

    def _mail(self, data: Data, depth: int) -> None:
        for part, alone in mails.parts(data):
            self._member(part, depth, alone=alone)

    def _html(self, data: Data, depth: int) -> None:
        with stored(pages.resolved(data)) as page:
            for content in pages.links(page):
                self._member(content, depth, alone=True)
            if len(page) < len(data):  # what is in an attribute may be a page, too
                self._member(pieces(page, 0, len(page)), depth, whole=False)

    def _pdf(self, data: Data, depth: int) -> None:
        try:
            for begin, end in pdf.attachments(data, lambda at: stored(self._counted(inflated(data, at)))):
                self._member(inflated(data, begin) if end == pdf.PACKS else pieces(data, begin, end), depth, alone=True)
        except ValueError:
            self.types.add("pdf attachment")


WALKS: dict[str, Callable[[_Inside, Data, int], None]] = {
    "tar": _Inside._tar,
    "zip": _Inside._zip,
    "ole2": _Inside._ole2,
    "pdf": _Inside._pdf,
    "mail": _Inside._mail,
    "html": _Inside._html,
}
WALKED = frozenset({*STREAMS, *WALKS})


def _refuse(name: str, data: Data, at: int) -> None:
    """Raise FaultError if one of WALKED does begin where it seems to."""
    if _begins(name, data, at):
        raise FaultError(Kind.BROKEN, f"a {name} behind other bytes")


def _begins(name: str, data: Data, at: int) -> bool:
    """Return whether what looks like one by a few bytes is a tar, by its checksum, a gzip, bzip2 or xz that expands,
    or a mail that Word opens.
    """
    if name == "gz":
        return _gives(data, at)
    if name == "mail":
        return formats.is_web_archive(data, at)
    if name not in STREAMS:
        return name != "tar" or is_tar(data[at : at + TAR_BLOCK])
    with suppress(lzma.LZMAError, OSError, ValueError):
        STREAMS[name]().decompress(data[at : at + FIRST_STEP], STEP)
        return True
    return False


def _gives(data: Data, at: int) -> bool:
    """Return whether a gzip gives SOME_BYTES before it ends or breaks. Its mark stands in each fiftieth photo by chance."""
    flags, begin = data[at + 3], at + 10
    if flags & GZ_EXTRA:
        begin += 2 + int.from_bytes(data[begin : begin + 2], "little")
    for _ in range((flags & GZ_NAME > 0) + (flags & GZ_COMMENT > 0)):
        begin = formats.find(data, b"\0", begin, at + LONGEST_HEADER) + 1
        if begin == 0:
            return at + LONGEST_HEADER < len(data)
    begin += 2 if flags & GZ_CHECKSUM else 0
    expander, given = zlib.decompressobj(wbits=-15), 0
    # In small steps: what comes before a fault within one is lost.
    for start in range(begin, min(begin + FIRST_BLOCK, len(data)), 8):
        try:
            given += len(expander.decompress(data[start : start + 8], SOME_BYTES))
        except zlib.error as error:
            refuse_little_memory(error)
            return False
        if given >= SOME_BYTES or expander.eof:
            return given >= SOME_BYTES
    return begin + FIRST_BLOCK < len(data)


def _is_plain(data: Data, at: int, end: int) -> bool:
    """Return whether a tar's extended header has none but known keys, each record of the length that it says."""
    while at < end and (record := PAX_KEY.match(data, at, end)):
        at += max(int(record[1]), 1)
    return at == end


def _plain_tar(data: Data, members: list[tuple[int, int]]) -> Iterator[bytes]:
    """Yield a tar of these members that each program reads in the same way."""
    for begin, stop in members:
        header = tarfile.TarInfo("member")
        header.size = stop - begin
        yield header.tobuf(tarfile.USTAR_FORMAT)
        yield from pieces(data, begin, stop)
        yield bytes((begin - stop) % TAR_BLOCK)
    yield bytes(2 * TAR_BLOCK)


def _filling(expander: Any, data: Data, at: int, stop: int) -> Iterator[bytes]:
    """Yield a zip's member. Raise FaultError if it does not end where its packed bytes do."""
    if (yield from expanded("a zip's member", expander, data, at, stop)) != stop:
        raise FaultError(Kind.BROKEN, "a zip's member with bytes behind its end")


def _unencrypted(manifest: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an OpenDocument file's manifest. Raise FaultError if it lists what is encrypted."""
    read = b""
    for chunk in manifest:
        read = read[-99:] + chunk
        if ODF_ENCRYPTION.search(read):
            raise FaultError(Kind.ENCRYPTED, "an encrypted OpenDocument file")
        yield chunk
