"""The interface of a storage: content in chunks, the identity of a version, and where below the root a file_url leads."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import unquote

CHUNK = 1 << 20

TAKEN_OUT = re.compile(r"[?#\x00-\x1f\x7f]|^ | $")
DECODED = re.compile(r"%[0-9A-Fa-f]{2}")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

# Any other word, or none, leaves the bytes as they are for all clients.
COMPRESSIONS = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"}


class RefusedError(Exception):
    """The file_url leads out of ATTACHMENTS_URL, or to what is no plain file. It will not get better."""


class MissingError(Exception):
    """Nothing is stored there."""


class StorageUnavailableError(Exception):
    """The storage gave no usable answer; the text is for the operator."""


class ChangedError(Exception):
    """The content is not what it was said to be."""


@dataclass(frozen=True, slots=True)
class Content:
    """Stored content that is being read, from its beginning, once."""

    pieces: Iterator[bytes]
    """Of CHUNK bytes each but the last. Raises StorageUnavailableError."""
    size: int | None
    """Bytes, None where the storage does not tell before the end."""
    identity: str
    """What the storage calls this content, and would call no other; empty where it gives nothing to go by."""
    may_hide_a_write: bool = False
    version: str | None = None
    """Of an object in a versioned bucket."""


class Storage(ABC):
    """Where attachments lie. Every call has its deadlines; nothing outside the root is ever opened."""

    @abstractmethod
    def open(self, file_url: str) -> AbstractContextManager[Content]:
        """Open content. Raise RefusedError, MissingError or StorageUnavailableError, also out of the body."""

    @abstractmethod
    def still_is(self, file_url: str, content: Content, sha256: str) -> bool:
        """Return whether that which file_url leads to now is the content that was read, whose hash is given."""

    @abstractmethod
    def put(self, file_url: str, content: Content, sha256: str, *, mode: int, writer: str = "") -> None:
        """Store a copy of the content, whole and durable or not at all; where there are file modes, with `mode`.

        Where the same file may be put by several at once, `writer` names each.
        Raise ChangedError if its hash is another, and what `open` raises.
        """

    @abstractmethod
    def remove(self, file_url: str, content: Content) -> None:
        """Delete the content: of a versioned bucket this version alone. Raise what `open` raises."""


def sha256_of(content: Content, take: Callable[[bytes], object] = len) -> str:
    """Read the content to its end, each piece of it given to `take`; return its SHA-256. Raise StorageUnavailableError."""
    sha256 = hashlib.sha256()
    for piece in content.pieces:
        sha256.update(piece)
        take(piece)
    return sha256.hexdigest()


def is_compressed(content_encoding: str) -> bool:
    """Return whether a Content-Encoding, which may list several, has clients expand the bytes: they see others than these."""
    return any(coding.strip().lower() in COMPRESSIONS for coding in content_encoding.split(","))


def segments(file_url: str, root_url: str, *, literal: bool = True) -> tuple[str, ...]:
    """Return the path of file_url below the root, a segment each, none of them empty, '.' or '..'.

    A file_url is a path (`/files/abc`), or a URL that starts with the root's; nothing in it is trusted. Raise RefusedError for
    all else, and unless names are served `literal`, to the letter, for one of which clients and web servers make another.
    """
    path = file_url
    root = root_url.rstrip("/") + "/"
    if path.startswith(root):
        path = path[len(root) :]
    elif SCHEME.match(path) or path.startswith("//"):
        raise RefusedError("file_url names a place outside ATTACHMENTS_URL, or has more than 500 characters")
    if "\\" in path or "\0" in path:
        # Some parsers take a backslash for a slash: what is checked here must be what is opened there.
        raise RefusedError("file_url holds a backslash or a NUL")
    parts = tuple(path.removeprefix("/").split("/"))
    if any(part in {"", ".", ".."} for part in parts):
        raise RefusedError("file_url has an empty segment, '.' or '..'")
    if not literal and (TAKEN_OUT.search(path) or DECODED.search(path)):
        raise RefusedError(
            "a web server may send another file for a name with ?, #, %xx, a control sign or an outer blank: store it under"
            " another name, or see ATTACHMENTS_LITERAL_NAMES"
        )
    return parts


def check_address(address: str) -> None:
    """Raise RefusedError for an address on the web of which clients fetch another: what is scanned must be what is served.

    A query can make the server transform the file; a fragment, control signs and outer blanks are taken out (WHATWG URL).
    """
    if TAKEN_OUT.search(address):
        raise RefusedError("file_url has a query or a fragment, a control sign or an outer blank")


def url_segments(file_url: str, root_url: str) -> tuple[str, ...]:
    """Return the segments as `segments` does, for a server that will decode %xx in them once more."""
    parts = segments(file_url, root_url)
    check_address(file_url)
    for part in parts:
        decoded = unquote(part)
        if decoded.partition(";")[0] in {".", ".."} or any(sign in decoded for sign in "/\\\0"):
            raise RefusedError("file_url hides a '..', a slash or a NUL behind %xx")
    return parts
