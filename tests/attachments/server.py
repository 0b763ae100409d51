"""A real HTTP server of attachments that answers as a test tells it to, and keeps what it was asked."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Answer:
    """What is answered for a path. `sent` cuts the body short of its Content-Length; `next` is the answer after this one;
    each `piece` comes after a `pause` in seconds.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    piece: int = 2**30
    pause: float = 0
    next: "Answer | None" = None


@dataclass
class Server:
    """The server's answers by path, and its requests: method, path and Authorization."""

    url: str
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    knows_conditions: bool = True


@contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """Serve on a free port of the loopback interface while the context lasts; over TLS with a (certificate, key)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.requests.append((self.command, self.path, self.headers["Authorization"]))
            answer = server.answers.get(self.path, Answer(status=404))
            if answer.next:
                server.answers[self.path] = answer.next
            tag = answer.headers.get("ETag")
            if tag and self.headers["If-None-Match"] == tag and server.knows_conditions:
                answer = Answer(status=304)
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            body = answer.body[: answer.sent]
            for at in range(0, len(body), answer.piece):
                time.sleep(answer.pause)
                self.wfile.write(body[at : at + answer.piece])
            self.close_connection = answer.sent is not None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{listener.server_port}")
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
        server.url = f"https://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, args=[0.05])
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
