"""Look into content by its own structure: what all in it is, and what is forged, broken or encrypted though clamd says OK."""

import bz2
import html
import lzma
import re
import string
import tempfile
import zlib
from binascii import a2b_base64, a2b_qp
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from mmap import ACCESS_READ, mmap
from typing import Any

from tasks.attachments import formats, ole2, pdf, zips
from tasks.attachments.formats import EXECUTABLE, HEAD_BYTES, MACROS, TAR_BLOCK, Data, is_tar, types
from tasks.attachments.verdicts import FaultError, Kind

# Expanders of whole streams, and of a zip's members by their method. The others are opened by no clamd.
STREAMS: dict[str, Callable[[], Any]] = {
    "gz": lambda: zlib.decompressobj(wbits=31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}
ZIP_MEMBERS: dict[int, Callable[[], Any]] = {8: lambda: zlib.decompressobj(wbits=-15), 12: bz2.BZ2Decompressor}
FIRST_STEP, STEP = 1 << 12, 1 << 18
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
PAX_SIZE = re.compile(rb"\d[ \t]+(?:size|SCHILY\.realsize|GNU\.sparse\.\w+)=")
# Of an encoding in which other letters may stand for these, too.
ODF_MANIFEST, ODF_ENCRYPTION = b"META-INF/manifest.xml", re.compile(rb"encryption-data|\0|encoding\s*=\s*[\"'](?!utf-8)", re.I)
ODF_MACROS = (b"Basic/", b"Scripts/")
OLE2_MARKS = {
    MACROS: re.compile(re.escape("_VBA_PROJECT".encode("utf-16-le")), re.IGNORECASE),
    # The class of Windows Installer's packages.
    EXECUTABLE: re.compile(re.escape(bytes.fromhex("84100c0000000000c000000000000046"))),
}
MAIL_ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*:(?:[^\n]|\n[ \t])*?\b(base64|quoted)", re.MULTILINE | re.IGNORECASE
)
# Lines that end with CR alone, and one of blanks, which some programs take for the end of the headers.
ODD_LINES = re.compile(rb"\r(?:MIME-Version|Content-(?:Type|Transfer-Encoding)):|\nContent-[^\n]+\n[ \t]+\r?\n", re.IGNORECASE)
# Headers and lines of dashes, and the blank line if one ends them. No group is repeated possessively here: where one fails
# in its middle, Debian 12's Python takes it for found, https://github.com/python/cpython/issues/106052
HEADERS = re.compile(rb"^(?:(?:--|[!-9;-~]+[ \t]*:|[ \t])[^\n]*\n)+(\r*\n)?", re.MULTILINE)
DASHES = re.compile(rb"^--[^\n]*", re.MULTILINE)
NO_BASE64 = bytes(set(range(256)) - {*string.ascii_letters.encode(), *b"0123456789+/="})
DATA_URI = re.compile(rb"base64\s*,([A-Za-z0-9+/\s]++)", re.IGNORECASE)
PLAIN_DATA_URI = re.compile(rb"data:(?![^,\"'<>]{0,200}base64\s*,)[^,\"'<>]{0,200}+,([^\"'<>]++)", re.IGNORECASE)
SWITCHES = re.compile(rb"\x1b[($][@BIJ]")
"""Of ISO-2022-JP: they may stand between any two letters."""
PERCENT_CODE, CODE = re.compile("%([0-9a-f]{2})", re.IGNORECASE), re.compile(rb"[&%][\w#]*")
EMBEDDED = re.compile(
    rb"\\objdata|<(?:[^\s<>/:]++:)?(?:binaryData|binData|binary-data)\b"
    # Where names of elements may be written in other letters: entities, and encodings that are not ASCII's.
    rb"|<!ENTITY\s[^\"'<>]*+(?:\"[^\"]*?&#|'[^']*?&#)"
    rb"|<\?xml\b[^<>]*?\bencoding\s*=\s*[\"'](?i:(?!utf-?(?:8|16|32)\b|us-ascii|iso-8859-|windows-|gb|big5|euc-|shift_jis|koi8-))"
)


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
        self._left = dict(MOST)

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
        for name, at in formats.behind(data):
            if name not in WALKED or (name == "pdf" and "ole2" in found):  # viewers open that one wherever it lies
                found.add(name)
            elif whole and name not in found and not found & formats.STORING:
                _refuse(name, data, at)
        if formats.WIDE.match(data):
            self._member((piece.translate(None, b"\0\xfe\xff") for piece in pieces(data, 0, len(data))), depth, whole=False)
        page = formats.PAGE.fullmatch(data[:HEAD_BYTES])
        if (page or "rtf" in found) and EMBEDDED.search(data):
            found.add("embedded object")
        self.types |= found
        for name in found & WALKED | ({"html"} if page else set()):
            if name in STREAMS:
                self._member(self._streams(name, data), depth, alone=name != "gz")
            else:
                WALKS[name](self, data, depth)

    def _refuse_between(self, data: Data, members: Iterable[tuple[int, int]]) -> None:
        """Raise FaultError if something begins in an archive's bytes that are in none of its members, which lie in order."""
        end, gaps = 0, list[Iterator[bytes]]()
        for begin, stop in (*members, (len(data), 0)):
            gaps.append(pieces(data, end, begin))
            end = stop
        with stored(chain.from_iterable(gaps)) as between:
            for name, at in formats.behind(between):
                if name in WALKED and name != "zip":  # of which each member's header is the beginning
                    _refuse(name, between, at)

    def _member(self, chunks: Iterable[bytes], depth: int, *, alone: bool = False, whole: bool = True) -> None:
        """Look at a file in another; have it scanned `alone` where clamd may not unpack it."""
        self._count("files in mails and documents", int(alone))
        with stored(self._counted(chunks)) as data:
            if alone:
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
            at = yield from _expanded(f"a {name}", STREAMS[name](), data, at, len(data))
            rest = SOMETHING.search(data, at)  # tapes and xz are padded with zeros
            if not rest or name not in types(data[rest.start() : rest.start() + HEAD_BYTES]):
                return
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
            if not known or (kind in b"xg" and PAX_SIZE.search(data, at, at + size)):
                raise FaultError(Kind.BROKEN, "a tar with sizes that clamd does not read")
            if size:
                self._member(pieces(data, at, at + size), depth)
                members.append((at, at + size))
            at += -(-size // TAR_BLOCK) * TAR_BLOCK
        if SOMETHING.search(data, at):
            raise FaultError(Kind.BROKEN, "a tar with bytes behind its end")
        self._refuse_between(data, members)

    def _zip(self, data: Data, depth: int) -> None:
        members = zips.members(data, self._most_inside)
        self._refuse_between(data, ((member.begin, member.begin + member.packed_bytes) for member in members))
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
        content = _as_far_as_it_goes(data, begin, stop) if alone and member.method == 8 else content
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
                    self._member(_inflated(content, found.end()) if packed else [content[found.end() :]], depth, alone=True)
        except ValueError:
            raise FaultError(Kind.BROKEN, "an OLE2 file with a header or directory that clamd does not read") from None

    def _mail(self, data: Data, depth: int) -> None:
        """Look at each part: headers from a line with dashes to a blank one, then its body up to the next dashes.

        To other programs a line that is no header ends them, too. What is encoded is also read up to the next line like the one
        that begins the part: programs pass over other dashes.
        """
        if ODD_LINES.search(data):
            raise FaultError(Kind.BROKEN, "a mail with line ends that clamd does not read")
        at = formats.starts(data)
        while at >= 0:
            blank = formats.BLANK_LINE.search(data, max(0, at - 1))
            last = blank.start() if blank else len(data)
            for headers in HEADERS.finditer(data, at):
                if headers.start() > last:
                    break
                if not headers[1]:
                    self._part(headers[0], data, headers.end(), depth)
            stop = self._part(data[at:last], data, blank.end(), depth) if blank else -1
            at = stop + 1 or -1

    def _part(self, headers: bytes, data: Data, begin: int, depth: int) -> int:
        """Look at the part of a mail whose body begins there; return where the next dashes are, -1 if nowhere."""
        stop = formats.find(data, b"\n--", begin - 1)
        for encoding in {found[1].lower() for found in MAIL_ENCODING.finditer(headers)} or {b""}:
            lines = {line[0].strip() for line in DASHES.finditer(headers)} if encoding else set[bytes]()
            own = {_next_line(line, data, begin - 1) for line in lines} or {-1}
            for end in {stop, *own} if encoding else {stop}:
                body = pieces(data, begin, end if end >= 0 else len(data))
                decoded = [a2b_qp(b"".join(body))] if encoding == b"quoted" else _from_base64(body) if encoding else body
                self._member(decoded, depth, alone=bool(encoding) or b"name" in headers.lower())
        return stop

    def _html(self, data: Data, depth: int) -> None:
        text = SWITCHES.sub(b"", data)
        with stored(_decoded(pieces(text, 0, len(text)))) as page:
            for found in DATA_URI.finditer(page):
                self._member(_from_base64(pieces(page, *found.span(1))), depth, alone=True)
            for found in PLAIN_DATA_URI.finditer(page):
                self._member([found[1]], depth, alone=True)
            if len(page) < len(data):  # what is in an attribute may be a page, too
                self._member(pieces(page, 0, len(page)), depth, whole=False)

    def _pdf(self, data: Data, depth: int) -> None:
        try:
            for begin, end in pdf.attachments(data, lambda at: stored(self._counted(_inflated(data, at)))):
                self._member(_inflated(data, begin) if end == pdf.PACKS else pieces(data, begin, end), depth, alone=True)
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


def _next_line(line: bytes, data: Data, at: int) -> int:
    """Return where a line like this one comes next, or with two dashes behind it, as a mail's last has; -1 if none does."""
    found = re.compile(rb"\n%s(?:--)?[ \t]*\r?$" % re.escape(line), re.MULTILINE).search(data, at)
    return found.start() if found else -1


def _refuse(name: str, data: Data, at: int) -> None:
    """Raise FaultError if one of WALKED does begin where it seems to."""
    if _begins(name, data, at):
        raise FaultError(Kind.BROKEN, f"a {name} behind other bytes")


def _begins(name: str, data: Data, at: int) -> bool:
    """Return whether what looks like one by a few bytes is a tar, by its checksum, or a gzip, bzip2 or xz that expands."""
    if name == "gz":
        return _gives(data, at)
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
            _refuse_little_memory(error)
            return False
        if given >= SOME_BYTES or expander.eof:
            return given >= SOME_BYTES
    return begin + FIRST_BLOCK < len(data)


def _refuse_little_memory(error: Exception) -> None:
    """Raise MemoryError if that is what zlib has met: nothing is said of the content then."""
    if str(error).startswith("Error -4 "):
        raise MemoryError


@contextmanager
def stored(chunks: Iterable[bytes]) -> Iterator[Data]:
    """Yield all chunks as one: one chunk as it is, more from a temporary file."""
    chunks = filter(None, chunks)
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
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            _refuse_little_memory(error)
            raise FaultError(Kind.BROKEN, f"{what} that does not expand: broken") from None
        if starved and not found:
            raise FaultError(Kind.BROKEN, f"{what} without its end: cut short")
        pending = getattr(expander, "unconsumed_tail", b"")
        if found:
            yield found
    return at - len(expander.unused_data)


def _filling(expander: Any, data: Data, at: int, stop: int) -> Iterator[bytes]:
    """Yield a zip's member. Raise FaultError if it does not end where its packed bytes do."""
    if (yield from _expanded("a zip's member", expander, data, at, stop)) != stop:
        raise FaultError(Kind.BROKEN, "a zip's member with bytes behind its end")


def _unencrypted(manifest: Iterable[bytes]) -> Iterator[bytes]:
    """Yield an OpenDocument file's manifest. Raise FaultError if it lists what is encrypted."""
    read = b""
    for chunk in manifest:
        read = read[-99:] + chunk
        if ODF_ENCRYPTION.search(read):
            raise FaultError(Kind.ENCRYPTED, "an encrypted OpenDocument file")
        yield chunk


def _decoded(page: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a page with its references to signs and its links' percent codes resolved."""
    held = b""
    for chunk in page:
        held += chunk
        end = max(held.rfind(b"&"), held.rfind(b"%"))
        if end < 0 or not CODE.fullmatch(held, end):  # else it may go on in the next chunk
            end = len(held)
        yield _resolved(held[:end])
        held = held[end:]
    yield _resolved(held)


def _resolved(text: bytes) -> bytes:
    try:
        plain = PERCENT_CODE.sub(lambda code: chr(int(code[1], 16)), html.unescape(text.decode("latin-1")))
    except ValueError:  # thousands of digits
        raise FaultError(Kind.BROKEN, "a page with a reference to no sign") from None
    return plain.encode("latin-1", "replace")


def _from_base64(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what letters stand for; those behind a padding begin anew, as some decoders have it."""
    letters = b""
    for chunk in chunks:
        *padded, letters = re.split(b"=+", letters + chunk.translate(None, NO_BASE64))
        yield from map(_padded, padded)
        whole = len(letters) & ~3
        if whole:
            yield a2b_base64(letters[:whole])
        letters = letters[whole:]
    yield _padded(letters)


def _padded(letters: bytes) -> bytes:
    return a2b_base64(letters[: len(letters) - (len(letters) % 4 == 1)] + b"==")


def _inflated(data: Data, at: int) -> Iterator[bytes]:
    """Yield what is packed in zlib's form, behind two bytes, whatever its checksum says."""
    return _as_far_as_it_goes(data, at + 2, len(data))


def _as_far_as_it_goes(data: Data, at: int, stop: int) -> Iterator[bytes]:
    """Yield what is deflated to the last byte before a fault, as viewers do."""
    expander, pending = zlib.decompressobj(wbits=-15), b""
    while not expander.eof and (pending or at < stop):
        if not pending:
            pending = data[at : min(at + FIRST_STEP, stop)]
            at += len(pending)
        before = expander.copy()
        try:
            yield expander.decompress(pending, STEP)
        except zlib.error:  # what comes before it in the same step is lost
            with suppress(zlib.error):
                for place in range(len(pending)):
                    yield before.decompress(pending[place : place + 1])
            return
        pending = expander.unconsumed_tail
    with suppress(zlib.error):
        yield expander.flush()


def pieces(data: Data, at: int, stop: int) -> Iterator[bytes]:
    return (data[start : min(start + STEP, stop)] for start in range(at, stop, STEP))
