"""A server that trickles: it ends no answer, and each piece comes long before a client's recv would time out."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PAUSE_SECONDS = 0.02

HEAD = b"HTTP/1.1 200 OK\r\n"
S3_HEAD = HEAD + b'ETag: "1"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/xml\r\n'

# What comes at once, and what is repeated for ever after it.
ENDLESS = {
    "status line": (b"", b"H"),
    "status line after its beginning": (b"HTTP/1.1 200 ", b"O"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a header": (S3_HEAD + b"X: ", b"x"),
    "chunk size": (S3_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunk extension": (S3_HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
    "tiny chunks": (S3_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailers": (S3_HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    "body": (S3_HEAD + b"Content-Length: 1000000\r\n\r\n", b"x"),
    "body without a length": (S3_HEAD + b"Connection: close\r\n\r\n", b"x"),
}

# A greeting of MySQL's, as long as one may be: it is for the server to begin.
GREETING = ((1_000_000).to_bytes(3, "little") + b"\0\x0a", b"x")


class Trickler:
    """The server; `asked` counts its connections."""

    def __init__(self, listener: socket.socket, answer: tuple[bytes, bytes]) -> None:
        self.asked = 0
        self.begun = threading.Event()
        self.left = threading.Event()
        self.address = listener.getsockname()
        self._listener, self._answer = listener, answer

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.asked += 1
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        first, again = self._answer
        wait = threading.Event()
        with connection, suppress(OSError):
            if self._answer is not GREETING:
                connection.recv(65536)
            connection.sendall(first)
            for piece in itertools.repeat(again):
                connection.sendall(piece)
                self.begun.set()
                wait.wait(PAUSE_SECONDS)
        self.left.set()


@contextmanager
def trickling(what: str | tuple[bytes, bytes], *, path: str | None = None) -> Iterator[Trickler]:
    """Serve one of ENDLESS, or what is given, on a free port of the loopback interface or on a Unix socket."""
    listener = socket.create_server(("127.0.0.1", 0)) if path is None else socket.socket(socket.AF_UNIX)
    if path is not None:
        listener.bind(path)
        listener.listen()
    server = Trickler(listener, ENDLESS[what] if isinstance(what, str) else what)
    threading.Thread(target=server.run, daemon=True).start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
