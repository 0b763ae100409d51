"""Admission of callers: whose token a request bears, and how often that caller, or a stranger's address, may ask."""

import base64
from datetime import UTC, datetime
from http import HTTPStatus
from typing import NoReturn

import structlog
from fastapi import HTTPException, Request

from settings import Settings
from workers.gateway import tokens
from workers.gateway.problems import wait
from workers.gateway.tokens import Token, TokensError, identify
from workers.limits import Buckets, neighbourhood

log = structlog.get_logger(__name__)

CHALLENGE = 'Bearer realm="chat-workers"'


def presented(request: Request) -> str:
    """Return the token of a request, sent as Bearer or as the password of any user; empty if there is none."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2] if scheme.lower() == "basic" else ""
    except ValueError:  # no base64, no UTF-8, or no ASCII
        return ""


def refuse(request: Request, refusals: Buckets, detail: str, challenge: str, **about: str) -> NoReturn:
    """Raise HTTPException: 401, or 429 where too many requests of this address were refused. `about` is for the log.

    Only refusals count against an address, and a valid token is never turned away for them: behind a proxy everyone has one
    address, and a stranger could otherwise lock the API out.
    """
    address = neighbourhood(request.client.host if request.client else "")
    # The challenge tells a client that waiting will not help: what bears a valid token is never turned away here.
    headers = {"WWW-Authenticate": challenge}
    why = "Too many requests from your address were refused: their token is missing or wrong, or it has expired"
    wait(refusals.take(address), why, headers)
    log.warning("refused", address=address, path=request.url.path, **about)
    raise HTTPException(HTTPStatus.UNAUTHORIZED, detail, headers)


class Admission:
    """The tokens and the limits that all requests for jobs share."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.gateway_tokens_file
        self._requests = Buckets(settings.gateway_requests_per_minute)
        self._refusals = Buckets(settings.gateway_refusals_per_minute)
        self._faults = Buckets(1)

    def admit(self, request: Request) -> Token:
        """Return whose request it is. Raise HTTPException: 401, 429, or 503 if there are no tokens to compare with."""
        try:
            if self._file is None:
                raise TokensError("GATEWAY_TOKENS_FILE is not set")
            known = tokens.current(self._file)
        except TokensError as error:
            if not self._faults.take(str(error)):  # not for each request: whoever asks is a stranger now
                log.error("nobody is let in", why=str(error))
            why = str(error) if self._file is None else "the tokens file cannot be used; the gateway's log says why"
            detail = f"Jobs cannot be started: {why}."
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "60"}) from None
        token, valid = identify(known, presented(request), datetime.now(UTC))
        if not valid:
            detail = "Send the header Authorization: Bearer TOKEN with a token that is valid; an operator makes one."
            refuse(request, self._refusals, detail, CHALLENGE, token=token.name)
        wait(self._requests.take(token.name), "This token has made too many requests")
        return token
