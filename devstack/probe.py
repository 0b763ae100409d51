"""Probes of a loopback port: one question, one answer, no retry."""

import http.client
import socket
import ssl
from pathlib import Path

SECONDS = 2.0


def tcp_answer(port: int, question: bytes) -> bytes:
    """Return the first bytes that come back, or b"" if nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
            connection.sendall(question)
            return connection.recv(256)
    except OSError:
        return b""


def http_status(port: int, method: str, path: str, ca_file: Path | None = None) -> int | None:
    """Return the status of an HTTP request, or None if nobody answers. With a ca_file it goes over TLS, verified."""
    try:
        if ca_file is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        else:
            context = ssl.create_default_context(cafile=ca_file)
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=context)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None
