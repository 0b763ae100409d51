"""Ask the one HTTP server that a variable names: at addresses that were checked, without redirects, within a deadline."""

import ipaddress
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, InvalidHeader, NewConnectionError

from tasks.deadline import Deadline, OverdueError, watched

CONNECT_SECONDS = 5.0
STALL_SECONDS = 30.0
"""The longest silence within a transfer; all of it, from connecting on, has the deadline of its caller."""

MOST_ADDRESSES = 4
MOST_ANSWER_BYTES = 64 * 1024
"""Of an answer whose status alone counts."""

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


POOLS = {"http": watched(HTTPConnectionPool, HTTPConnection), "https": watched(HTTPSConnectionPool, HTTPSConnection)}
"""For managers of pools, ours and libraries'."""


class NoAnswerError(Exception):
    """The server was not asked, or gave no answer. The text says why and shows nothing of the URL but an address."""


class Server:
    """The server of the URL in `variable`. `private_network` allows its name to resolve to private addresses."""

    def __init__(self, variable: str, url: str, *, private_network: bool, connections: int) -> None:
        self._variable = variable
        self._url = urlsplit(url)
        self._private_network = private_network
        tls: dict[str, Any] = {}
        if self._url.scheme == "https":
            name = self._url.hostname
            tls = {"ssl_context": ssl.create_default_context(), "server_hostname": name, "assert_hostname": name}
        timeout = Timeout(connect=CONNECT_SECONDS, read=STALL_SECONDS)
        self._pools = PoolManager(maxsize=connections, timeout=timeout, **tls)
        self._pools.pool_classes_by_scheme = POOLS

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> BaseHTTPResponse:
        """Return the answer, its body unread. The caller has a Deadline around this, and closes it. Raise NoAnswerError."""
        problem: Exception | None = None
        for address in self._addresses():
            try:
                pool = self._pools.connection_from_host(str(address), self._url.port, self._url.scheme)
                return pool.urlopen(
                    method,
                    path,
                    body=body,
                    headers={"Host": self._url.netloc, "User-Agent": "chat-workers", **headers},
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
            except (NewConnectionError, ConnectTimeoutError) as error:
                problem = error
            except (HTTPError, OSError) as error:
                raise NoAnswerError(f"{self._variable} gave no answer: {said(error)}") from None
        raise NoAnswerError(f"{self._variable} cannot be reached: {said(problem)}")

    def post(self, headers: Mapping[str, str], body: bytes, seconds: float, *, more: str = "") -> BaseHTTPResponse:
        """POST to the URL, with `more` behind its path, within `seconds`; return the answer, closed. Raise NoAnswerError."""
        try:
            with Deadline(seconds):
                answer = self.ask("POST", (self._url.path + more) or "/", headers, body)
                try:
                    answer.read(MOST_ANSWER_BYTES)  # so that the connection can be used again
                finally:
                    answer.close()
                return answer
        except (HTTPError, OSError) as error:
            why = str(error) if isinstance(error, OverdueError) else said(error)
            raise NoAnswerError(f"{self._variable} gave no whole answer: {why}") from None

    def _addresses(self) -> list[Address]:
        """Return the addresses to connect to, checked; the name is resolved here and nowhere else."""
        host = self._url.hostname or ""
        try:
            found = socket.getaddrinfo(host, self._url.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NoAnswerError(f"the host of {self._variable} has no address: {error.strerror}") from None
        addresses = list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))[:MOST_ADDRESSES]
        # Who writes an address into the setting means it; a name may come to point elsewhere by someone else's hand.
        meant = self._private_network or host == "localhost" or any(str(address) == host for address in addresses)
        for address in addresses:
            check_address(address, self._variable, private_network=meant)
        return addresses


def check_address(address: Address, variable: str, *, private_network: bool) -> None:
    """Raise NoAnswerError if this is no address to connect to, or leads to one inside of IPv6."""
    for led_to in _unwrapped(address):
        if any(led_to in network for network in NEVER):
            raise NoAnswerError(f"the host of {variable} resolves to {address}, which is never connected to")
        if not private_network and (not led_to.is_global or any(led_to in network for network in PRIVATE)):
            raise NoAnswerError(
                f"the host of {variable} resolves to the private address {address}; if that is meant, set"
                f" {variable.removesuffix('_URL')}_PRIVATE_NETWORK=true"
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


def retry_after(header: str | None, most: int) -> float | None:
    """Return the seconds that a Retry-After asks for (RFC 9110, 10.2.3), `most` at most; None if missing or unreadable."""
    with suppress(InvalidHeader, ValueError, OverflowError):
        return None if header is None else float(Retry(retry_after_max=most).parse_retry_after(header))
    return None


def said(error: Exception | None) -> str:
    """Return an error's kind: its text may hold the address and the token's request."""
    return type(error).__name__
