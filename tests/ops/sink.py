"""An HTTP server that takes everything and keeps it: where spans and error reports go in the tests."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Sink:
    """What has arrived, decompressed, by path."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.arrived: list[tuple[str, bytes]] = []
        self.headers: list[str] = []

    def bodies(self, path: str) -> bytes:
        return b"\n".join(body for at, body in self.arrived if path in at)


@contextmanager
def sink() -> Iterator[Sink]:
    """Listen on a free loopback port for as long as the block lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            taken.arrived.append((self.path, body))
            taken.headers.append(str(self.headers).lower())
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken = Sink(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield taken
        server.shutdown()
        thread.join()
