"""An HTTP/2 server made of `h2`, in a thread of its own, that answers as a script says; a proxy that can stop forwarding."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

OK = [(":status", "200"), ("content-type", "application/json")]


class Peer(asyncio.Protocol):
    """One client's connection: `h2` is what reads and writes the frames."""

    def __init__(self, server: "Http2Server") -> None:
        self.server = server
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.bodies: dict[int, bytes] = {}
        self.most_open = self.resets = 0
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.peers.append(self)
        self.h2.initiate_connection()
        self.h2.update_settings(self.server.settings)
        self.flush()
        self.server.joined(self)

    def data_received(self, data: bytes) -> None:
        with suppress(ProtocolError):
            for event in self.h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    self.bodies[event.stream_id] = b""
                    self.most_open = max(self.most_open, self.h2.open_inbound_streams)
                    self.server.headers.append({str(name): str(value) for name, value in event.headers})
                    self.server.begun(self, event.stream_id)
                elif isinstance(event, DataReceived):
                    self.bodies[event.stream_id] += event.data
                    self.server.read(self, event)
                elif isinstance(event, StreamEnded):
                    self.server.taken.append(self.bodies[event.stream_id])
                    self.server.script(self, event.stream_id)
                elif isinstance(event, StreamReset):
                    self.resets += 1
                elif isinstance(event, WindowUpdated):
                    self.server.widened(self)
        self.flush()

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed = True

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def answer(self, stream: int, body: bytes = b"{}", headers: list[tuple[str, str]] = OK, **data: Any) -> None:
        self.h2.send_headers(stream, headers)
        self.h2.send_data(stream, body, end_stream=True, **data)
        self.flush()

    def go_away(self, last: int) -> None:
        """Say that no stream after `last` was taken. `h2` itself is not told, for it could answer nothing more."""
        self.flush()
        self.transport.write(GoAwayFrame(0, last_stream_id=last).serialize())


def acknowledge(peer: Peer, event: DataReceived) -> None:
    peer.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


class Http2Server:
    """The server. What it does with a request is in `script`, which is called when the request is whole."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.script: Callable[[Peer, int], None] = Peer.answer
        self.joined: Callable[[Peer], None] = lambda _peer: None
        self.begun: Callable[[Peer, int], None] = lambda _peer, _stream: None
        self.read: Callable[[Peer, DataReceived], None] = acknowledge
        self.widened: Callable[[Peer], None] = lambda _peer: None
        self.settings: dict[int, int] = {}
        self.peers: list[Peer] = []
        self.headers: list[dict[str, str]] = []
        self.taken: list[bytes] = []
        self.loop = asyncio.new_event_loop()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._context.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        made = self.loop.create_server(lambda: Peer(self), sock=self._listener, ssl=self._context)
        self.loop.run_until_complete(made)
        self.loop.run_forever()

    def later(self, call: Callable[[], None], seconds: float = 0) -> None:
        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, call)


@contextmanager
def serving(certificate: Path, key: Path) -> Iterator[Http2Server]:
    """Serve for the length of the block."""
    server = Http2Server(certificate, key)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(server.loop.stop)
        thread.join(10)


class Proxy:
    """A TCP proxy: connections made before `freeze()` carry nothing more, and are not closed; later ones work."""

    def __init__(self, port: int) -> None:
        self.to, self._frozen, self.made = port, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._frozen = self.made

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.made += 1
                server = socket.create_connection(("127.0.0.1", self.to))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=[self.made, *ends], daemon=True).start()

    def _carry(self, number: int, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if number > self._frozen:
                    sink.sendall(data)
