"""Admission: whose token a request bears, the API's or the operators', and how often one may ask or be refused."""

import base64
import ipaddress
import os
import re
from datetime import UTC, datetime
from functools import cache
from hmac import compare_digest
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

import structlog
from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPBearer

from settings import ConfigurationError, get_settings
from workers.gateway import tokens
from workers.gateway.catalogue import EVENTS
from workers.gateway.problems import wait
from workers.gateway.tokens import Token, TokensError, identify
from workers.limits import Buckets, neighbourhood

log = structlog.get_logger(__name__)

CHALLENGE = 'Bearer realm="chat-workers"'
OPERATORS_CHALLENGE = 'Basic realm="chat-workers operators", charset="UTF-8"'
SHORTEST_TOKEN = 16
LARGEST_FILE_BYTES = 64 * 1024
PORT = re.compile(r":[0-9]*$")

_faults = Buckets(1)


@cache
def _buckets(_of: str, per_minute: int) -> Buckets:
    return Buckets(per_minute)


def presented(request: Request) -> str:
    """Return the token of a request, sent as Bearer or as the password of any user; empty if there is none."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2] if scheme.lower() == "basic" else ""
    except ValueError:  # no base64, no UTF-8, or no ASCII
        return ""


def refuse(request: Request, detail: str, challenge: str, **about: str) -> NoReturn:
    """Raise HTTPException: 401, or 429 where too many requests of this address were refused. `about` is for the log.

    Only refusals count against an address, and a valid token is never turned away for them: behind a proxy everyone has one
    address, and a stranger could otherwise lock the API out.
    """
    address = neighbourhood(request.client.host if request.client else "")
    # The challenge tells a client that waiting will not help: what bears a valid token is never turned away here.
    headers = {"WWW-Authenticate": challenge}
    why = "Too many requests from your address were refused: their token is missing or wrong, or it has expired"
    wait(_buckets("refusals", get_settings().gateway_refusals_per_minute).take(address), why, headers)
    log.warning("refused", address=address, path=request.url.path, **about)
    raise HTTPException(HTTPStatus.UNAUTHORIZED, detail, headers)


def admit(request: Request) -> Token:
    """Return which of the API's tokens a request bears. Raise HTTPException: 401, 429, or 503 if there are none to compare."""
    settings = get_settings()
    file = settings.gateway_tokens_file
    try:
        if file is None:
            raise TokensError("GATEWAY_TOKENS_FILE is not set")
        known = tokens.read(file)
    except TokensError as error:
        if not _faults.take(str(error)):  # not for each request: whoever asks is a stranger now
            log.error("nobody is let in", why=str(error))
        why = str(error) if file is None else "the tokens file cannot be used; the gateway's log says why"
        detail = f"Jobs cannot be started: {why}."
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "60"}) from None
    token, valid = identify(known, presented(request), datetime.now(UTC))
    if not valid:
        detail = "Send the header Authorization: Bearer TOKEN with a token that is valid; an operator makes one."
        refuse(request, detail, CHALLENGE, token=token.name)
    wait(_buckets("requests", settings.gateway_requests_per_minute).take(token.name), "This token has made too many requests")
    return token


def charge(token: Token, more: int) -> None:
    """Count `more` requests beside one that was admitted: an id in a body costs what a request costs."""
    _buckets("requests", get_settings().gateway_requests_per_minute).owe(token.name, more)


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches what listens on an address; a name that is no address counts as open."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def read_private(variable: str, path: Path) -> str:
    """Return the text of a file of secrets. Raise ConfigurationError with a sentence, also if it is open to everyone."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o007:
                raise ConfigurationError(f"{variable} {path} is open to everyone: chmod o= {path}")
            return file.read(LARGEST_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{variable} cannot be read: {error}") from None


async def admit_operator(request: Request) -> None:
    """Let a request pass that bears the token, as Bearer (Prometheus) or as the password of any user (a browser).

    Without GATEWAY_OPERATIONS_TOKEN_FILE a gateway that listens on loopback is open to requests for this machine by name, and
    one that others reach is shut. The file is read at each request: a new token holds at once.
    """
    settings = get_settings()
    if settings.gateway_operations_token_file is None:
        if is_loopback(settings.gateway_address):
            if is_loopback(PORT.sub("", request.headers.get("host", ""))):
                return
            # A page of any site may have its own name point at 127.0.0.1 and read the answer in an operator's browser.
            raise HTTPException(403, "open to localhost alone: set GATEWAY_OPERATIONS_TOKEN_FILE to open it to other names")
        raise HTTPException(
            403, "shut, for GATEWAY_ADDRESS is reached by others: set GATEWAY_OPERATIONS_TOKEN_FILE to open it with a token"
        )
    try:
        token = read_private("GATEWAY_OPERATIONS_TOKEN_FILE", settings.gateway_operations_token_file).strip()
    except ConfigurationError as error:
        raise HTTPException(503, str(error)) from None
    if len(token) < SHORTEST_TOKEN:
        raise HTTPException(503, f"GATEWAY_OPERATIONS_TOKEN_FILE holds fewer than {SHORTEST_TOKEN} characters")
    if not compare_digest(presented(request).encode(), token.encode()):
        refuse(request, "the operators' token is needed", OPERATORS_CHALLENGE)


async def admit_reader(request: Request) -> None:
    """Let pass what bears an API's token that is for everything or for events, or is let pass as an operator's."""
    if not presented(request).startswith(tokens.PREFIX):
        await admit_operator(request)
    elif (jobs := admit(request).jobs) is not None and EVENTS not in jobs:
        raise HTTPException(403, "This token may not read events; an operator makes one that may.")


# For the OpenAPI document alone.
_bearer = HTTPBearer(auto_error=False, scheme_name="operator", description="The token of GATEWAY_OPERATIONS_TOKEN_FILE.")
Operators = (Depends(admit_operator), Depends(_bearer))
Readers = (Depends(admit_reader), Depends(_bearer))
