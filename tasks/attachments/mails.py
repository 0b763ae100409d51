"""Find the parts of a mail, wherever programs may see one begin and end."""

import re
from binascii import a2b_qp
from collections.abc import Generator, Iterable, Iterator

from tasks.attachments import formats
from tasks.attachments.formats import Data
from tasks.attachments.streams import from_base64, pieces
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


def parts(data: Data) -> Iterator[tuple[Iterable[bytes], bool]]:
    """Yield each part, decoded, and whether clamd should scan it by itself. Raise FaultError.

    A part is headers from a line with dashes to a blank one, then its body up to the next dashes. To other programs a line that
    is no header ends headers, too. What is encoded is also read up to the next line like the one that begins the part: programs
    pass over other dashes.
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
                yield from _part(headers[0], data, headers.end())
        stop = (yield from _part(data[at:last], data, blank.end())) if blank else -1
        at = stop + 1 or -1


def _part(headers: bytes, data: Data, begin: int) -> Generator[tuple[Iterable[bytes], bool], None, int]:
    """Yield the part whose body begins there; return where the next dashes are, -1 if nowhere."""
    stop = formats.find(data, b"\n--", begin - 1)
    for encoding in {found[1].lower() for found in MAIL_ENCODING.finditer(headers)} or {b""}:
        lines = {line[0].strip() for line in DASHES.finditer(headers)} if encoding else set[bytes]()
        own = {_next_line(line, data, begin - 1) for line in lines} or {-1}
        for end in {stop, *own} if encoding else {stop}:
            body = pieces(data, begin, end if end >= 0 else len(data))
            decoded = [a2b_qp(b"".join(body))] if encoding == b"quoted" else from_base64(body) if encoding else body
            yield decoded, bool(encoding) or b"name" in headers.lower()
    return stop


def _next_line(line: bytes, data: Data, at: int) -> int:
    """Return where a line like this one comes next, or with two dashes behind it, as a mail's last has; -1 if none does."""
    found = re.compile(rb"\n%s(?:--)?[ \t]*\r?$" % re.escape(line), re.MULTILINE).search(data, at)
    return found.start() if found else -1
