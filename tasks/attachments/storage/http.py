"""Attachments behind HTTP, such as Directus assets: one host, no redirects, a checked address, the bytes as stored."""

import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from tasks.attachments.storage.address import url_segments
from tasks.attachments.storage.base import (
    Content,
    MissingError,
    RefusedError,
    StorageUnavailableError,
    is_compressed,
    sha256_of,
)
from tasks.deadline import Deadline, OverdueError, Watched

CONNECT_SECONDS = 5.0
STALL_SECONDS = 30.0
"""The longest silence within a transfer; all of it, from connecting on, has its deadline."""

MOST_ADDRESSES = 4
NOT_MODIFIED = 304
LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
LENGTH = re.compile(r"[0-9]{1,18}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        # This host, link-local, protocol assignments, multicast, reserved; unspecified, link-local, site-local, multicast.
        *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/128", "fe80::/10", "fec0::/10", "ff00::/8"),
        # Where clouds hand out credentials beside 169.254.169.254: Azure, Alibaba, AWS and Google over IPv6.
        *("168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::/32", "fd20:ce::254/128"),
    )
)
"""Not connected to whatever is set."""
PRIVATE = tuple(map(ipaddress.ip_network, ("100.64.0.0/10", "198.18.0.0/15", "fc00::/7", "64:ff9b:1::/48", "5f00::/16")))
"""Beside what this Python's own table calls private: those tables grow and differ."""
ENDS_IN_IPV4 = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::/96")))
"""NAT64 (RFC 6052) and IPv4-compatible addresses."""


class _Connection(Watched, HTTPConnection):
    pass


class _TlsConnection(Watched, HTTPSConnection):
    pass


class HttpContent:
    """A response that is being read. It is the same as before if its strong ETag is, or else its bytes read once more."""

    def __init__(self, storage: "HttpStorage", file_url: str, response: BaseHTTPResponse, within: Deadline) -> None:
        self._storage = storage
        self._file_url = file_url
        self._response = response
        self._within = within
        self.size = _size(response)
        # Without a length, an answer cut short looks like a whole one: it is read once more.
        told = self.size is not None or "chunked" in response.headers.get("Transfer-Encoding", "")
        self.identity = _identity(response) if told else ""
        self._arrived = 0

    def read_into(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer) and (part := self._read(len(buffer) - filled)):
            buffer[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def _read(self, most: int) -> bytes:
        """Return what one wait of at most STALL_SECONDS brings."""
        try:
            part = self._response.read1(most)
        except (HTTPError, OSError) as error:
            raise StorageUnavailableError(f"the transfer broke off: {_said(error)}") from None
        self._within.check()
        self._arrived += len(part)
        if not part:
            self._within.over()
        if not part and self.size is not None and self._arrived != self.size:
            # read1 takes a closed connection for the end.
            raise StorageUnavailableError(f"the transfer broke off after {self._arrived} of {self.size} bytes")
        return part

    def still_is(self, sha256: str) -> bool:
        try:
            with self._storage.request(self._file_url, known=self.identity) as (response, within):
                if self.identity and (response.status == NOT_MODIFIED or _identity(response) == self.identity):
                    return True
                # Two servers behind one address may have ETags of their own for the same bytes.
                return sha256_of(HttpContent(self._storage, self._file_url, response, within)) == sha256
        except (MissingError, RefusedError):
            return False

    def remove(self) -> None:
        raise StorageUnavailableError("over HTTP the API's files are only read")


class HttpStorage:
    """The server that ATTACHMENTS_URL names."""

    def __init__(
        self, root_url: str, *, token: str | None, private_network: bool, connections: int, transfer_seconds: float = 300
    ) -> None:
        """`token` goes into every request's Authorization. `private_network` allows a name to resolve to private addresses.
        `transfer_seconds` bounds the reading of one file.
        """
        self.transfer_seconds = transfer_seconds
        self._root_url = root_url
        self._url = urlsplit(root_url)
        self._private_network = private_network
        self._connections = connections
        # The bytes as they are stored: a compressed answer would be neither what is scanned nor what the hash is of.
        self._headers = {"Host": self._url.netloc, "Accept-Encoding": "identity", "User-Agent": "chat-workers"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pools: dict[Address, HTTPConnectionPool] = {}
        self._lock = threading.Lock()

    @contextmanager
    def open(self, file_url: str) -> Iterator[HttpContent]:
        with self.request(file_url) as (response, within):
            yield HttpContent(self, file_url, response, within)

    def put(self, file_url: str, content: Content, sha256: str, *, mode: int) -> None:  # noqa: ARG002 - nothing is done
        raise StorageUnavailableError("over HTTP the API's files are only read")

    @contextmanager
    def request(self, file_url: str, *, known: str = "") -> Iterator[tuple[BaseHTTPResponse, Deadline]]:
        """Ask for a file and yield the answer: of status 200, or 304 if it is still the `known` one. Raise as `open` does.

        The deadline is for all of it, from connecting to the end of the body.
        """
        path = "/".join(
            (
                self._url.path,
                *(
                    quote(LONE_PERCENT.sub("%25", part), safe="%!$&'()*+,;=:@~")
                    for part in url_segments(file_url, self._root_url)
                ),
            )
        )
        try:
            with Deadline(self.transfer_seconds) as within:
                response = self._send(path, {**self._headers, **({"If-None-Match": known} if known else {})})
                try:
                    within.check()
                    if not (known and response.status == NOT_MODIFIED):
                        _check(response)
                    yield response, within
                finally:
                    # What is left unread of a large answer is not worth waiting for.
                    response.close()
        except OverdueError as error:
            raise StorageUnavailableError(f"the content did not arrive whole: {error}") from None

    def _send(self, path: str, headers: dict[str, str]) -> BaseHTTPResponse:
        problem: Exception | None = None
        for address in self._addresses():
            try:
                return self._pool(address).urlopen(
                    "GET",
                    path,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
            except (NewConnectionError, ConnectTimeoutError) as error:
                problem = error
            except (HTTPError, OSError) as error:
                raise StorageUnavailableError(f"ATTACHMENTS_URL gave no answer: {_said(error)}") from None
        raise StorageUnavailableError(f"ATTACHMENTS_URL cannot be reached: {_said(problem)}")

    def _addresses(self) -> list[Address]:
        """Return the addresses to connect to, checked; the name is resolved here and nowhere else."""
        host = self._url.hostname or ""
        try:
            found = socket.getaddrinfo(host, self._url.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise StorageUnavailableError(f"the host of ATTACHMENTS_URL has no address: {error.strerror}") from None
        addresses = list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))[:MOST_ADDRESSES]
        # Who writes an address into the setting means it; a name may come to point elsewhere by someone else's hand.
        meant = self._private_network or host == "localhost" or any(str(address) == host for address in addresses)
        for address in addresses:
            check_address(address, private_network=meant)
        return addresses

    def _pool(self, address: Address) -> HTTPConnectionPool:
        with self._lock:
            if address not in self._pools:
                # The port is always named: without one, http.client takes the end of an IPv6 address for it.
                tls, name = self._url.scheme == "https", self._url.hostname
                made: dict[str, Any] = {"host": str(address), "port": self._url.port or (443 if tls else 80)}
                made |= {"maxsize": self._connections, "timeout": Timeout(connect=CONNECT_SECONDS, read=STALL_SECONDS)}
                if tls:
                    made |= {"ssl_context": ssl.create_default_context(), "server_hostname": name, "assert_hostname": name}
                pool = HTTPSConnectionPool(**made) if tls else HTTPConnectionPool(**made)
                pool.ConnectionCls = _TlsConnection if tls else _Connection
                self._pools[address] = pool
            return self._pools[address]


def check_address(address: Address, *, private_network: bool) -> None:
    """Raise StorageUnavailableError if this is no address to fetch attachments from, or leads to one inside of IPv6."""
    for led_to in _unwrapped(address):
        if any(led_to in network for network in NEVER):
            raise StorageUnavailableError(f"the host of ATTACHMENTS_URL resolves to {address}, which is never connected to")
        if not private_network and (not led_to.is_global or any(led_to in network for network in PRIVATE)):
            raise StorageUnavailableError(
                f"the host of ATTACHMENTS_URL resolves to the private address {address}; if that is meant, set"
                " ATTACHMENTS_PRIVATE_NETWORK=true"
            )


def _unwrapped(address: Address) -> tuple[Address, ...]:
    """Return the IPv4 addresses that a mapped, compatible, 6to4, Teredo or NAT64 address leads to; any other as it is."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback or address.is_unspecified:
        return (address,)
    if found := address.ipv4_mapped or address.sixtofour:
        return (found,)
    if address.teredo:
        return address.teredo
    return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),) if any(address in each for each in ENDS_IN_IPV4) else (address,)


def _check(response: BaseHTTPResponse) -> None:
    status = response.status
    if status in {404, 410}:
        raise MissingError(f"the server has no such file (status {status})")
    if 300 <= status < 400:
        raise StorageUnavailableError(f"the server answered with a redirect (status {status}), which is not followed")
    if status in {401, 403}:
        # Directus and S3 say so of what is not there, too.
        reason = "check ATTACHMENTS_TOKEN; some servers answer so for a file that is not there"
        raise StorageUnavailableError(f"the server does not let us read the file (status {status}): {reason}")
    if status != 200:
        raise StorageUnavailableError(f"the server answered with status {status}")
    if is_compressed(response.headers.get("Content-Encoding", "")):
        raise StorageUnavailableError("the server sends the file compressed, though it was asked for the bytes as stored")


def _size(response: BaseHTTPResponse) -> int | None:
    """Return the bytes that the body is said to have, None where it does not say. Raise StorageUnavailableError at nonsense."""
    length: str | None = response.headers.get("Content-Length")
    if length is None:
        return None
    if not LENGTH.fullmatch(length):
        # `+1`, `1_0` and thousands of digits are numbers for some parsers and none for others.
        raise StorageUnavailableError("the server sends a Content-Length that is none")
    return int(length)


def _identity(response: BaseHTTPResponse) -> str:
    tag = response.headers.get("ETag", "")
    # A weak ETag promises no equal bytes (RFC 9110, 8.8.1), and Last-Modified has whole seconds.
    return tag if tag.startswith('"') else ""


def _said(error: Exception | None) -> str:
    """Return an error's kind: its text may hold the address and the token's request."""
    return type(error).__name__
