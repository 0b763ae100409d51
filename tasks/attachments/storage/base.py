"""The interface of a storage: content in chunks, the identity of a version, and whether it is still the same."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

CHUNK = 1 << 20

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
