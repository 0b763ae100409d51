"""One conversation with clamd, over a Unix socket or TCP: a deadline on every step, and an answer or an exception."""

import math
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from tasks.deadline import Deadline, OverdueError

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 5.0
STALL_SECONDS = 30.0
"""How long clamd may take no byte of a stream before it counts as hung."""

# Kept this long: a version asked for before a scan is never newer than the one that scanned.
VERSION_SECONDS = 5.0

LONGEST_REPLY = 4096
VERSION = re.compile(r"ClamAV (?P<engine>[\w.+~-]{1,32})(?:/(?P<database>\d{1,9})/(?P<made>[^/]+))?")
END_OF_STREAM, CLEAN = struct.pack(">I", 0), b"stream: OK\0"


class ClamdUnavailableError(Exception):
    """clamd gave no usable answer; the text says at which step."""


class ClamdAwayError(ClamdUnavailableError):
    """clamd cannot be reached."""


class BrokeOffError(ClamdUnavailableError):
    """clamd gave no answer on content that it had begun to take."""


class AnsweredEarlyError(Exception):
    """clamd answered, with these bytes, and closed while content was still on its way."""


class Version(NamedTuple):
    """`database` is the version of the signatures, made at a time of its host's zone; 0 where it tells of no daily database."""

    engine: str
    database: int
    made: datetime | None = None


@contextmanager
def _step(what: str, failure: type[ClamdUnavailableError] = ClamdUnavailableError) -> Iterator[None]:
    """Turn a socket's error within one step into this failure."""
    try:
        yield
    except TimeoutError:
        raise failure(f"clamd did not {what} in time") from None
    except OSError as error:
        raise failure(f"clamd did not {what}: {error.strerror or error}") from None


class Stream:
    """One INSTREAM. Left without `finish`, the connection closes and clamd throws the content away unscanned."""

    def __init__(self, connection: socket.socket, scan_seconds: float) -> None:
        self._connection = connection
        self._scan_seconds = scan_seconds
        with _step("take the command"):
            connection.sendall(b"zINSTREAM\0")

    def send(self, chunk: bytes) -> None:
        """Send content. Raise AnsweredEarlyError if clamd wants no more of it, which is how it reports its size limit."""
        if not self._put(struct.pack(">I", len(chunk)), chunk):
            # The answer was sent before the close and is still there to be read.
            reply = _read_reply(self._connection, COMMAND_SECONDS)
            if reply == CLEAN:
                raise ClamdUnavailableError("clamd said OK to a part of what it was sent")
            raise AnsweredEarlyError(reply)

    def finish(self) -> bytes:
        """End the stream and return clamd's reply; b"" if it closed without one."""
        return _read_reply(self._connection, self._scan_seconds if self._put(END_OF_STREAM) else COMMAND_SECONDS)

    def _put(self, *parts: bytes) -> bool:
        """Send these; return False if clamd has closed its end."""
        self._connection.settimeout(STALL_SECONDS)
        with _step("take the content", BrokeOffError), suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                self._connection.sendall(part)
            return True
        return False


class Clamd:
    """clamd at `url`: unix:///path or tcp://host:port. Used from many threads, a connection for each conversation."""

    def __init__(self, url: str, *, scan_seconds: float) -> None:
        """`scan_seconds` is how long clamd may take for its answer: its queue and MaxScanTime."""
        self._url = urlsplit(url)
        self.scan_seconds = scan_seconds
        self._version: tuple[float, Version] | None = None

    def version(self) -> Version:
        """Return the version that clamd runs, at most VERSION_SECONDS old. Raise ClamdUnavailableError."""
        if self._version is None or time.monotonic() > self._version[0] + VERSION_SECONDS:
            asked_at = time.monotonic()
            with self._connected() as connection:
                with _step("take the command"):
                    connection.sendall(b"zVERSION\0")
                self._version = (asked_at, read_version(_read_reply(connection, COMMAND_SECONDS)))
        return self._version[1]

    def forget_version(self) -> None:
        """Ask anew next time: clamd failed, so it may have been replaced."""
        self._version = None

    @contextmanager
    def stream(self, *, seconds: float | None = None) -> Iterator[Stream]:
        """Open a stream. Raise ClamdUnavailableError, also out of the body, when a step fails or takes too long.

        `seconds` is how long the answer may take, if no scan's usual time.
        """
        with self._connected() as connection:
            yield Stream(connection, self.scan_seconds if seconds is None else min(seconds, self.scan_seconds))

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with ExitStack() as opened:
            try:
                if self._url.scheme == "tcp":
                    address = self._url.hostname, self._url.port or 3310
                    connection = opened.enter_context(socket.create_connection(address, timeout=CONNECT_SECONDS))
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                else:
                    connection = opened.enter_context(socket.socket(socket.AF_UNIX))
                    connection.settimeout(CONNECT_SECONDS)
                    connection.connect(self._url.path)
            except OSError as error:
                raise ClamdAwayError(f"clamd cannot be reached: {error.strerror or error}") from None
            try:
                with Deadline(math.inf) as deadline:  # each step has its own; this one ends when the worker stops
                    deadline.hold(self, connection)
                    yield connection
            except OverdueError as error:
                raise ClamdUnavailableError(f"clamd was left: {error}") from None


def read_version(reply: bytes) -> Version:
    """Return what a reply to VERSION says. Raise ClamdUnavailableError if no clamd gives such a reply."""
    match = VERSION.fullmatch(reply.removesuffix(b"\0").decode("ascii", "replace"))
    if not match or not reply.endswith(b"\0"):
        raise ClamdUnavailableError(f"what answers at CLAMD_URL is no clamd: it said {reply[:80]!r} to VERSION")
    made = None
    with suppress(ValueError):
        made = datetime.strptime(match["made"] or "", "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    return Version(match["engine"], int(match["database"] or 0), made)


def _read_reply(connection: socket.socket, seconds: float) -> bytes:
    """Return what clamd says until it ends the reply or closes, bounded in bytes and time."""
    deadline = time.monotonic() + seconds
    reply = b""
    while len(reply) < LONGEST_REPLY and not reply.endswith((b"\0", b"\n")):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = b""
        with _step("answer", BrokeOffError), suppress(ConnectionResetError):
            part = connection.recv(LONGEST_REPLY - len(reply))
        if not part:
            break
        reply += part
    return reply
