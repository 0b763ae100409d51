"""How a client's TCP connection is reset from this process, as a crashed server or a dropped route would.

The HTTP server keeps its sockets to itself, so the connection is found among the process's own descriptors by the
client's address. With SO_LINGER 0 the server's own close then sends a RST instead of an orderly end.
"""

import os
import socket
import struct
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")
_LINGER_ZERO = struct.pack("ii", 1, 0)


def reset_connection(client: str) -> bool:
    """Given a client's "address:port", reset its connection and return whether it was found."""
    for descriptor in _sockets():
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            if _peer(connection) == client:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
                connection.shutdown(socket.SHUT_RD)
                return True
    return False


def _sockets() -> list[int]:
    found = []
    for entry in _DESCRIPTORS.iterdir():
        try:
            if str(entry.readlink()).startswith("socket:"):
                found.append(int(entry.name))
        except FileNotFoundError:
            continue
    return found


def _peer(connection: socket.socket) -> str | None:
    try:
        address = connection.getpeername()
    except OSError:
        return None
    return f"{address[0]}:{address[1]}" if connection.family == socket.AF_INET else None
