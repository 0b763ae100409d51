"""Read content in pieces: as it is, expanded or decoded. What is long lies in a temporary file, and not in memory."""

import lzma
import re
import string
import tempfile
import zlib
from binascii import a2b_base64
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from typing import Any

from tasks.attachments.formats import Data
from tasks.attachments.verdicts import FaultError, Kind

FIRST_STEP, STEP = 1 << 12, 1 << 18
NO_BASE64 = bytes(set(range(256)) - {*string.ascii_letters.encode(), *b"0123456789+/="})


def pieces(data: Data, at: int, stop: int) -> Iterator[bytes]:
    return (data[start : min(start + STEP, stop)] for start in range(at, stop, STEP))


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


def refuse_little_memory(error: Exception) -> None:
    """Raise MemoryError if that is what zlib has met: nothing is said of the content then."""
    if str(error).startswith("Error -4 "):
        raise MemoryError


def expanded(what: str, expander: Any, data: Data, at: int, stop: int) -> Generator[bytes, None, int]:
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
            refuse_little_memory(error)
            raise FaultError(Kind.BROKEN, f"{what} that does not expand: broken") from None
        if starved and not found:
            raise FaultError(Kind.BROKEN, f"{what} without its end: cut short")
        pending = getattr(expander, "unconsumed_tail", b"")
        if found:
            yield found
    return at - len(expander.unused_data)


def inflated(data: Data, at: int) -> Iterator[bytes]:
    """Yield what is packed in zlib's form, behind two bytes, whatever its checksum says."""
    return as_far_as_it_goes(data, at + 2, len(data))


def as_far_as_it_goes(data: Data, at: int, stop: int) -> Iterator[bytes]:
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


def place(pattern: re.Pattern[bytes], data: Data, at: int = 0) -> int:
    """Return where this is found; the end if nowhere."""
    return found.start() if (found := pattern.search(data, at)) else len(data)


def decoded(chunks: Iterable[bytes], unended: re.Pattern[bytes], decode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Yield what chunks stand for. What is `unended` at the end of one may go on in the next."""
    held = b""
    for chunk in chunks:
        held += chunk
        end = place(unended, held)
        yield decode(held[:end])
        held = held[end:]
    yield decode(held)


def from_base64(chunks: Iterable[bytes]) -> Iterator[bytes]:
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
