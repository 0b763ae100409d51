"""Attachments behind HTTP, such as Directus assets: one host, no redirects, a checked address, the bytes as stored."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from tasks.attachments.storage.base import (
    CHUNK,
    Content,
    MissingError,
    RefusedError,
    Storage,
    StorageUnavailableError,
    is_compressed,
    sha256_of,
    url_segments,
)
from tasks.deadline import Deadline, OverdueError
from tasks.http import NoAnswerError, Server, said

NOT_MODIFIED = 304
LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
LENGTH = re.compile(r"[0-9]{1,18}")


class HttpStorage(Storage):
    """The server that ATTACHMENTS_URL names. Its files are only read."""

    def __init__(
        self, root_url: str, *, token: str | None, private_network: bool, connections: int, transfer_seconds: float = 300
    ) -> None:
        """`token` goes into every request's Authorization. `private_network` allows a name to resolve to private addresses.
        `transfer_seconds` bounds the reading of one file.
        """
        self.transfer_seconds = transfer_seconds
        self._root_url = root_url
        self._path = urlsplit(root_url).path
        self._server = Server("ATTACHMENTS_URL", root_url, private_network=private_network, connections=connections)
        # The bytes as they are stored: a compressed answer would be neither what is scanned nor what the hash is of.
        self._headers = {"Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    @contextmanager
    def open(self, file_url: str) -> Iterator[Content]:
        with self._ask(file_url) as (response, within):
            yield _content(response, within)

    def still_is(self, file_url: str, content: Content, sha256: str) -> bool:
        try:
            with self._ask(file_url, known=content.identity) as (response, within):
                if content.identity and (response.status == NOT_MODIFIED or _identity(response) == content.identity):
                    return True
                # Two servers behind one address may have ETags of their own for the same bytes.
                return sha256_of(_content(response, within)) == sha256
        except (MissingError, RefusedError):
            return False

    def put(self, *_: object, **__: object) -> None:
        raise StorageUnavailableError("over HTTP the API's files are only read")

    remove = put

    @contextmanager
    def _ask(self, file_url: str, *, known: str = "") -> Iterator[tuple[BaseHTTPResponse, Deadline]]:
        """Ask for a file and yield the answer: of status 200, or 304 if it is still the `known` one. Raise as `open` does.

        The deadline is for all of it, from connecting to the end of the body.
        """
        parts = (LONE_PERCENT.sub("%25", part) for part in url_segments(file_url, self._root_url))
        path = "/".join((self._path, *(quote(part, safe="%!$&'()*+,;=:@~") for part in parts)))
        headers = {**self._headers, **({"If-None-Match": known} if known else {})}
        try:
            with Deadline(self.transfer_seconds) as within:
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


def _content(response: BaseHTTPResponse, within: Deadline) -> Content:
    length: str | None = response.headers.get("Content-Length")
    if length is not None and not LENGTH.fullmatch(length):
        # `+1`, `1_0` and thousands of digits are numbers for some parsers and none for others.
        raise StorageUnavailableError("the server sends a Content-Length that is none")
    size = None if length is None else int(length)
    # Without a length, an answer cut short looks like a whole one: it is read once more.
    told = size is not None or "chunked" in response.headers.get("Transfer-Encoding", "")
    return Content(_pieces(response, size, within), size, _identity(response) if told else "")


def _pieces(response: BaseHTTPResponse, size: int | None, within: Deadline) -> Iterator[bytes]:
    arrived = 0
    try:
        while piece := response.read(CHUNK):
            within.check()
            arrived += len(piece)
            yield piece
    except (HTTPError, OSError) as error:
        raise StorageUnavailableError(f"the transfer broke off: {said(error)}") from None
    within.check()
    within.over()
    if size not in (None, arrived):
        raise StorageUnavailableError(f"the transfer broke off after {arrived} of {size} bytes")


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


def _identity(response: BaseHTTPResponse) -> str:
    tag = response.headers.get("ETag", "")
    # A weak ETag promises no equal bytes (RFC 9110, 8.8.1), and Last-Modified has whole seconds.
    return tag if tag.startswith('"') else ""
