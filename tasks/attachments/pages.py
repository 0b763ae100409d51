"""Find what is in the links of a page, and the marks of objects in other texts."""

import html
import re
from collections.abc import Iterable, Iterator

from tasks.attachments.formats import Data
from tasks.attachments.streams import from_base64, pieces
from tasks.attachments.verdicts import FaultError, Kind

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


def links(page: Data) -> Iterator[Iterable[bytes]]:
    """Yield what the `data:` links of a resolved page hold."""
    for found in DATA_URI.finditer(page):
        yield from_base64(pieces(page, *found.span(1)))
    for found in PLAIN_DATA_URI.finditer(page):
        yield [found[1]]


def resolved(data: Data) -> Iterator[bytes]:
    """Yield a page with its references to signs and its links' percent codes resolved."""
    text, held = SWITCHES.sub(b"", data), b""
    for chunk in pieces(text, 0, len(text)):
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
