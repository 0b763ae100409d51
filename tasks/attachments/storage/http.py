"""Attachments behind HTTP, such as Directus assets: one host, no redirects, a checked address, the bytes as stored."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from tasks.attachments.storage.address import url_segments
from tasks.attachments.storage.base import (
    MissingError,
    RefusedError,
    StorageUnavailableError,
    is_compressed,
    sha256_of,
)
from tasks.deadline import Deadline, OverdueError
from tasks.http import NoAnswerError, Server, said

NOT_MODIFIED = 304
LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
LENGTH = re.compile(r"[0-9]{1,18}")


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
            raise StorageUnavailableError(f"the transfer broke off: {said(error)}") from None
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
        self._server = Server("ATTACHMENTS_URL", root_url, private_network=private_network, connections=connections)
        # The bytes as they are stored: a compressed answer would be neither what is scanned nor what the hash is of.
        self._headers = {"Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    @contextmanager
    def open(self, file_url: str) -> Iterator[HttpContent]:
        with self.request(file_url) as (response, within):
            yield HttpContent(self, file_url, response, within)

    def put(self, *_: object, **__: object) -> None:
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
                headers = {**self._headers, **({"If-None-Match": known} if known else {})}
                response = self._server.ask("GET", path, headers)
                try:
                    within.check()
                    if not (known and response.status == NOT_MODIFIED):
                        _check(response)
                    yield response, within
                finally:
                    # What is left unread of a large answer is not worth waiting for.
                    response.close()
        except NoAnswerError as error:
            raise StorageUnavailableError(str(error)) from None
        except OverdueError as error:
            raise StorageUnavailableError(f"the content did not arrive whole: {error}") from None


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
