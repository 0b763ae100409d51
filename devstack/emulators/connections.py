"""Clients' TCP connections: how many streams each carries, and its reset, as by a crashed server or a dropped route.

The HTTP server keeps its sockets to itself, so the connection is found among the process's own descriptors by the
client's address. With SO_LINGER 0 the server's own close then sends a RST instead of an orderly end.
"""

import os
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path

# What Google's front ends announce: a client that wants more in flight must open a second connection or wait.
STREAMS_PER_CONNECTION = 100

_DESCRIPTORS = Path("/proc/self/fd")
_LINGER_ZERO = struct.pack("ii", 1, 0)
# Long enough for what was read from a connection to be handled, too short for its port to come round again.
_REMEMBERED_SECONDS = 10.0


class Resets:
    """The connections that were reset a moment ago, by the client's "address:port"."""

    def __init__(self) -> None:
        self._gone: dict[str, float] = {}

    def __contains__(self, client: str) -> bool:
        return bool(self._gone) and time.monotonic() - self._gone.get(client, -_REMEMBERED_SECONDS) < _REMEMBERED_SECONDS

    def reset(self, client: str) -> bool:
        """Reset a client's connection; return False if that was done before, or the connection is not there."""
        if client in self or not _reset(client):
            return False
        self._gone[client] = time.monotonic()
        return True


def _reset(client: str) -> bool:
    for descriptor in _DESCRIPTORS.iterdir():
        with suppress(OSError):  # it was closed meanwhile, or is no connection
            if str(descriptor.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(descriptor.name))) as connection:
                    if connection.family == socket.AF_INET and "{}:{}".format(*connection.getpeername()) == client:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
                        connection.shutdown(socket.SHUT_RD)
                        return True
    return False
