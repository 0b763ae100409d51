"""A real HTTP server that is called with events: it verifies each signature, answers as told, and keeps what it took."""

import base64
import hashlib
import hmac
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRETS = [base64.b64encode(byte * 32).decode() for byte in (b"a", b"b")]


@dataclass
class Receiver:
    """Its `answers` are status codes by the event's type, else `status`. `before` is called before each answer."""

    url: str = ""
    status: int = 204
    answers: dict[str, int] = field(default_factory=dict)
    retry_after: str = ""
    before: Callable[[dict[str, Any]], None] = lambda _: None
    asked: "Counter[str]" = field(default_factory=Counter)
    """How often each id came."""
    taken: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Headers, in lower case, and body of each."""
    unsigned: list[str] = field(default_factory=list)

    def types(self) -> list[str]:
        return [event["type"] for event in self.taken]


def signature(secret: str, *parts: str) -> str:
    digest = hmac.digest(base64.b64decode(secret), ".".join(parts).encode(), hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


@contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """Serve on the loopback interface while the context lasts."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            number, stamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
            if self.headers["webhook-signature"].split() != [signature(secret, number, stamp, body) for secret in SECRETS]:
                receiver.unsigned.append(body)
            event = json.loads(body)
            receiver.asked[number] += 1
            receiver.requests.append({"headers": {name.lower(): value for name, value in self.headers.items()}, "body": event})
            receiver.before(event)
            status = receiver.answers.get(event["type"], receiver.status)
            if status < 300:
                receiver.taken.append(event)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if receiver.retry_after:
                self.send_header("Retry-After", receiver.retry_after)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}/events"
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
