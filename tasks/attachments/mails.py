"""Find the parts of a mail, wherever programs may see one begin and end."""

import re
from binascii import a2b_qp
from collections.abc import Generator, Iterable, Iterator

from tasks.attachments import formats
from tasks.attachments.formats import Data
from tasks.attachments.streams import from_base64, pieces, place
from tasks.attachments.verdicts import FaultError, Kind

MAIL_ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*:(?:[^\n]|\n[ \t])*?\b(base64|quoted)", re.MULTILINE | re.IGNORECASE
)
# Lines that end with CR alone, and one of blanks, which some programs take for the end of the headers.
ODD_LINES = re.compile(rb"\r(?:MIME-Version|Content-(?:Type|Transfer-Encoding)):|\nContent-[^\n]+\n[ \t]+\r?\n", re.IGNORECASE)
# Headers and lines of dashes, and the blank line if one ends them. No group is repeated possessively here: where one fails
# in its middle, Debian 12's Python takes it for found, https://github.com/python/cpython/issues/106052
HEADERS = re.compile(rb"^(?:(?:--|[!-9;-~]+[ \t]*:|[ \t])[^\n]*\n)+(\r*\n)?", re.MULTILINE)
DASHES = re.compile(rb"^--[^\n]*", re.MULTILINE)
BLANKS, PADDING = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)"), re.compile(rb"=[^A-Za-z0-9+/=]*[A-Za-z0-9+/]")
NEXT_PART, NEXT_MAIL = re.compile(rb"\n(?:--|From )"), re.compile(rb"\nFrom" + formats.MBOX_DATE)


def parts(data: Data) -> Iterator[tuple[Iterable[bytes], bool]]:
    """Yield each part, decoded, and whether clamd should scan it by itself. Raise FaultError.

    A part is headers from a line with dashes, or an mbox's line before a mail, to a blank one, then its body up to the next
    such line. To other programs a line that is no header ends headers, too. They pass over such lines in the middle of a part,
    so what has a type or an encoding is also read up to the next line like the one that begins it, or to the next mail.
    """
    if ODD_LINES.search(data):
        raise FaultError(Kind.BROKEN, "a mail with line ends that clamd does not read")
    at = first = formats.starts(data)
    while at < len(data):
        blank = formats.BLANK_LINE.search(data, max(0, at - 1))
        last = blank.start() if blank else len(data)
        lines = {line[0].strip() for line in DASHES.finditer(data[at:last])}
        for headers in HEADERS.finditer(data, at):
            if headers.start() > last:
                break
            if not headers[1]:
                yield from _part(headers[0], lines, data, headers.end(), alone_in_it=at == first)
        stop = (yield from _part(data[at:last], lines, data, blank.end(), alone_in_it=at == first)) if blank else last
        at = stop + 1


def _part(
    headers: bytes, lines: set[bytes], data: Data, begin: int, *, alone_in_it: bool
) -> Generator[tuple[Iterable[bytes], bool], None, int]:
    """Yield the part whose body begins there; return where the next begins."""
    stop = place(NEXT_PART, data, begin - 1)
    headers = headers.lower()
    ends = {stop}
    if b"content-" in headers:
        ends |= {place(_next_line(line), data, begin - 1) for line in lines} or {place(NEXT_MAIL, data, begin - 1)}
        ends |= {len(data)} if alone_in_it and not lines else set()
    for encoding in {found[1] for found in MAIL_ENCODING.finditer(headers)} or {b""}:
        for end in ends:
            for decoded in _decoded(encoding, data, begin, end):
                yield decoded, bool(encoding) or b"name" in headers
    return stop


def _decoded(encoding: bytes, data: Data, begin: int, end: int) -> Iterator[Iterable[bytes]]:
    """Yield what a body stands for, in each way that programs have it: with and without blanks before the ends of lines; up to
    a padding in the middle, or on behind it, which then counts for nothing or for a letter.
    """
    if encoding == b"quoted":
        body = data[begin:end]
        yield from ([a2b_qp(each)] for each in {body, BLANKS.sub(b"", body)})
    elif encoding:
        yield from_base64(pieces(data, begin, end))
        if padding := PADDING.search(data, begin, end):
            yield from_base64(pieces(data, begin, padding.start()))
            for letter in (b"", b"A"):
                yield from_base64(piece.replace(b"=", letter) for piece in pieces(data, begin, end))
    else:
        yield pieces(data, begin, end)


def _next_line(line: bytes) -> re.Pattern[bytes]:
    """Return an expression for a line like this one, or with two dashes behind it, as a mail's last has."""
    return re.compile(rb"\n%s(?:--)?[ \t]*\r?$" % re.escape(line), re.MULTILINE)
