"""Find what is in the links of a page, and the marks of objects in other texts."""

import html
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from tasks.attachments.formats import HEAD_BYTES, Data, find
from tasks.attachments.streams import decoded, from_base64, pieces, place
from tasks.attachments.verdicts import FaultError, Kind

# Browsers pass over ends of lines in a link, and read percent codes in what it holds.
GAP = rb"[\t\r\n]*"
BASE64 = re.compile(GAP.join((b"b", b"a", b"s", b"e", b"6", b"4")) + rb"\s*,([\w+/%=\s]++)", re.IGNORECASE)
DATA_URI = re.compile(GAP.join((b"d", b"a", b"t", b"a", b":")) + rb"([^,]{0,4096}+),", re.IGNORECASE)
TAG = re.compile(rb"<[A-Za-z]")
QUOTE = re.compile(rb"[\"'<>]")
ENTITY = re.compile(rb"<!ENTITY\s+([^\s\"'%;]+)\s+(?:\"([^\"]*)\"|'([^']*)')")
BLANKS, MOST_BLANKS = bytes(range(33)), 1000
MOST_ROUNDS, MOST_GROWTH = 9, 1 << 20
SWITCHES = re.compile(rb"\x1b[($][@BIJ]")
"""Of ISO-2022-JP: they may stand between any two letters."""
UNENDED_CODE, UNENDED_REFERENCE = re.compile(rb"%.?\Z", re.DOTALL), re.compile(rb"&[\w#]*+\Z")
REFERENCE = re.compile(rb"&(?:#(?:[0-9]+|[xX][0-9A-Fa-f]+)|[A-Za-z][0-9A-Za-z]{1,31});?")
EMBEDDED = re.compile(
    rb"\\objdata|<(?:[^\s<>/:]++:)?(?:binaryData|binData|binary-data|ForeignData|chunk)\b"
    # Where names of elements may be written in other letters: entities, and encodings that are not ASCII's.
    rb"|<!ENTITY\s[^\"'<>]*+(?:\"[^\"]*?&#|'[^']*?&#)"
    rb"|<\?xml\b[^<>]*?\bencoding\s*=\s*[\"'](?i:(?!utf-?(?:8|16|32)\b|us-ascii|iso-8859-|windows-|gb|big5|euc-|shift_jis|koi8-))"
)


def is_text(data: Data) -> bool:
    """Return whether this is a text with a tag, which a browser or Office may take for a page or a document."""
    return b"\0" not in data[:HEAD_BYTES] and find(data, b"<") >= 0


def links(page: Data) -> Iterator[Iterable[bytes]]:
    """Yield what the `data:` links of a resolved page hold."""
    if not _names_any(page):
        return
    for found in BASE64.finditer(page):
        yield from_base64(_unquoted(page, *found.span(1)))
    for found in DATA_URI.finditer(page):
        before = page[max(0, found.start() - MOST_BLANKS) : found.start()].rstrip(BLANKS)[-1:]
        delimiter = re.compile(before if before in {b"'", b'"'} else rb"[\s>]")
        encoded = unquote_to_bytes(found[1]).translate(None, b"\t\r\n ").lower().endswith(b"base64")
        # A quote of the other kind may stand in it.
        for end in {place(QUOTE, page, found.end()), place(delimiter, page, found.end())}:
            content = _unquoted(page, found.end(), end)
            yield from_base64(content) if encoded else content


def _names_any(page: Data) -> bool:
    """Return whether a page holds what such links have: a tenth of the time of the expressions."""
    held = b""
    for piece in pieces(page, 0, len(page)):
        held = held[-5:] + piece.translate(None, b"\t\r\n").lower()
        if b"base64" in held or b"data:" in held:
            return True
    return False


def _unquoted(page: Data, begin: int, end: int) -> Iterator[bytes]:
    """Return what a part of a link stands for."""
    chunks = (piece.translate(None, b"\t\r\n") for piece in pieces(page, begin, end))
    return decoded(chunks, UNENDED_CODE, unquote_to_bytes)


def _with_entities(text: bytes) -> bytes:
    """Return a page with its own entities in place of the references to them. Raise FaultError."""
    own = {name: first or second for name, first, second in ENTITY.findall(text)}
    if not own:
        return text
    most, reference = len(text) + MOST_GROWTH, re.compile(rb"&(%s);" % b"|".join(map(re.escape, own)))
    for _ in range(MOST_ROUNDS):
        if sum(len(own[name]) for name in reference.findall(text)) + len(text) > most:
            break
        text, count = reference.subn(lambda found: own[found[1]], text)
        if not count:
            return text
    raise FaultError(Kind.BROKEN, "a page with entities in entities without end")


def resolved(data: Data) -> Iterator[bytes]:
    """Return a page with its references to signs and entities resolved. Raise FaultError."""
    text = _with_entities(SWITCHES.sub(b"", data))
    return decoded(pieces(text, 0, len(text)), UNENDED_REFERENCE, _resolved)


def _resolved(text: bytes) -> bytes:
    try:
        return REFERENCE.sub(lambda found: html.unescape(found[0].decode()).encode("latin-1", "replace"), text)
    except ValueError:  # thousands of digits
        raise FaultError(Kind.BROKEN, "a page with a reference to no sign") from None
