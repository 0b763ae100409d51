"""The answers and messages of every emulated provider, and the protocols between its parts."""

import zlib
from collections.abc import Iterable
from enum import Enum
from typing import Any, NamedTuple, Protocol

import orjson

Headers = list[tuple[str, str]]

JSON_UTF8: Headers = [("content-type", "application/json; charset=UTF-8")]
HTML_UTF8: Headers = [("content-type", "text/html; charset=UTF-8")]
# Stands in a fault's JSON for the Unix time in ms since when the device is gone.
SINCE = "@since"


class Ending(Enum):
    """The end of an exchange on the wire."""

    WHOLE = "whole"
    TORN = "torn"
    """The answer stops in mid-body: this request alone fails with a transport error."""
    RESET = "reset"
    """The TCP connection is reset before any answer: everything in flight on it fails with a transport error."""


class Answer(NamedTuple):
    """An HTTP answer. It is counted under `outcome`; where it `accepts`, the message is logged before it is sent."""

    outcome: str
    status: int
    headers: Headers
    body: bytes
    accepts: bool = False
    ending: Ending = Ending.WHOLE


class Message(NamedTuple):
    """A well-formed, authorised push message, before the provider's verdict on its device."""

    token: str
    notification_id: str | None
    collapse: str | None
    name: str
    """The provider's own name for the message: what the sender gets back."""
    digest: str = ""
    """Of what it says, see `digest_of`."""
    dry_run: bool = False
    content: Any = None
    """The decoded message, where a phone that is offline may have it kept."""


class RequestHeaders(Protocol):
    def get(self, key: str, default: str | None = None) -> str | None: ...


class Request(Protocol):
    """The part of an RSGI scope that endpoints read."""

    http_version: str
    scheme: str
    authority: str | None
    client: str
    method: str
    path: str
    headers: RequestHeaders


class Provider(Protocol):
    """A push provider: parses and judges a request on its own rules, before any injected fault."""

    name: str
    logged: bool
    """Whether what it accepts is a push, to be written to the log of accepted messages."""
    faults: dict[str, Answer]
    """Its answers to injected faults, by kind."""

    def receive(self, request: Request, body: bytes) -> Message | Answer: ...

    def accepted(self, message: Message) -> Answer: ...


def json_answer(outcome: str, status: int, payload: Any, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """Given a JSON-able payload, return the answer that carries it."""
    return Answer(outcome, status, [*JSON_UTF8, *headers], orjson.dumps(payload))


def notification_id_of(payload: dict[str, Any]) -> str | None:
    """Given a decoded payload, return its notification_id, at the top or under "data", as text."""
    data = payload.get("data")
    found = payload.get("notification_id") or (data.get("notification_id") if isinstance(data, dict) else None)
    return None if found is None else str(found)


def digest_of(words: Any) -> str:
    """Given an object with a title and a body, return a few digits that tell its words from others: no content is logged."""
    if not isinstance(words, dict):
        return ""
    title, body = words.get("title"), words.get("body")
    return f"{zlib.crc32(f'{title} {body}'.encode()):08x}"


_BAD_GATEWAY_PAGE = (
    b"<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error 502 (Server Error)!!1</title>\n"
    b"  <p><b>502.</b> <ins>That\xe2\x80\x99s an error.</ins>\n"
    b"  <p>The server encountered a temporary error and could not complete your request."
    b"<p>Please try again in 30 seconds.  <ins>That\xe2\x80\x99s all we know.</ins>\n"
)
_TORN_BODY = b'{"name": "projects/'

# Kinds that every provider has. `slow` is plain success: its rule brings the latency.
TRANSPORT_FAULTS: dict[str, Answer] = {
    "slow": Answer("accepted", 200, [], b"", accepts=True),
    "bad_gateway": Answer("bad_gateway", 502, HTML_UTF8, _BAD_GATEWAY_PAGE),
    "not_json": Answer("not_json", 200, HTML_UTF8, b"<html><body>Sign in to the network</body></html>"),
    "reset": Answer("reset", 0, [], b"", ending=Ending.RESET),
    "accepted_reset": Answer("accepted_reset", 0, [], b"", accepts=True, ending=Ending.RESET),
    "accepted_cut": Answer("accepted_cut", 200, JSON_UTF8, _TORN_BODY, accepts=True, ending=Ending.TORN),
}
