"""Admission of callers: whose token a request bears, and how often that caller, or a stranger's address, may ask."""

from datetime import UTC, datetime
from http import HTTPStatus

import structlog
from fastapi import HTTPException, Request

from settings import Settings
from workers.gateway.limits import Buckets, neighbourhood
from workers.gateway.problems import wait
from workers.gateway.tokens import Token, TokensError, TokensFile, identify

log = structlog.get_logger(__name__)

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="chat-workers"'}


class Admission:
    """The tokens and the limits that all requests for jobs share."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = TokensFile(settings.gateway_tokens_file) if settings.gateway_tokens_file else None
        self._logged = ""
        self._requests = Buckets(settings.gateway_requests_per_minute)
        self._refusals = Buckets(settings.gateway_refusals_per_minute)

    def admit(self, request: Request) -> Token:
        """Return whose request it is. Raise HTTPException: 401, 429, or 503 if there are no tokens to compare with.

        Only refusals count against an address, and a valid token is never turned away for them: behind a proxy everyone has one
        address, and a stranger could otherwise lock the API out.
        """
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        token, valid = identify(self._current(), presented.strip() if scheme.lower() == "bearer" else "", datetime.now(UTC))
        if valid:
            wait(self._requests.take(token.name), "This token has made too many requests")
            return token
        address = neighbourhood(request.client.host if request.client else "")
        # The challenge tells a client that waiting will not help: what bears a valid token is never turned away here.
        wait(
            self._refusals.take(address),
            "Too many requests from your address were refused: their token is missing or wrong, or it has expired",
            CHALLENGE,
        )
        log.warning("refused", address=address, token=token.name, path=request.url.path)
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "Send the header Authorization: Bearer TOKEN with a token that is valid; an operator makes one.",
            CHALLENGE,
        )

    def _current(self) -> tuple[Token, ...]:
        if self._tokens is None:
            raise _closed("GATEWAY_TOKENS_FILE is not set")
        try:
            tokens = self._tokens.current()
        except TokensError as error:
            # Once, not for each request: whoever asks is a stranger now.
            if str(error) != self._logged:
                self._logged = str(error)
                log.error("nobody is let in", why=self._logged)
            raise _closed("the tokens file cannot be used; the gateway's log says why") from None
        self._logged = ""
        return tokens


def _closed(why: str) -> HTTPException:
    return HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"Jobs cannot be started: {why}.", {"Retry-After": "60"})
