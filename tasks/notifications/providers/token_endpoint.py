"""The client for OAuth's token endpoints (RFC 6749): one deadline a call, a bound on its answer, nothing unpacked."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

import orjson

from tasks.notifications.outcome import provider_words
from tasks.notifications.providers.transport import NoAnswerError, Transport, UnusableUrlError

CALL_SECONDS = 10.0
"""From connecting to the answer's last byte."""
LONGEST_LIFE_SECONDS = 86_400
LONGEST_REASON = 120
BEARER = re.compile(r"[\x21-\x7e]+")  # what a header may carry
HEADERS = {"accept": "application/json", "accept-encoding": "identity", "content-type": "application/x-www-form-urlencoded"}


class CredentialsError(Exception):
    """No access token is to be had; the text says why."""


class Token(NamedTuple):
    """An access token that a header may carry, and its seconds to live."""

    bearer: str
    seconds: float


class Credentials(Protocol):
    """A kind of credentials: what it is that a token endpoint, or several in turn, are asked with."""

    async def fetch(self, endpoint: "TokenEndpoint") -> Token:
        """Return a new token. Raise CredentialsError."""


class TokenEndpoint:
    """Asks token endpoints, over connections of its own: one that hangs holds nothing else."""

    def __init__(self) -> None:
        self.transport = Transport(in_flight=1, seconds=CALL_SECONDS)

    async def ask(self, url: str, form: Mapping[str, str]) -> Token:
        """Return the token that is given for a grant. Raise CredentialsError."""
        try:
            answer = await self.transport.by_pyreqwest("POST", url, HEADERS, urlencode(form).encode())
        except (NoAnswerError, UnusableUrlError) as error:
            raise CredentialsError(f"the token endpoint gave no answer: {error}") from None
        try:
            given = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            given = None
        if not isinstance(given, dict) or answer.status != 200:
            raise CredentialsError(f"the token endpoint answered {answer.status}{_reason(given)}")
        return usable(given)

    async def close(self) -> None:
        """Close the connections."""
        await self.transport.close()


def usable(given: dict[str, Any]) -> Token:
    """Return the token of an answer. Raise CredentialsError where it has none that can be used."""
    bearer, seconds = given.get("access_token"), given.get("expires_in")
    if not isinstance(bearer, str) or not BEARER.fullmatch(bearer):
        raise CredentialsError("the token endpoint's answer holds no token")
    try:
        life = float(seconds)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        life = math.nan
    if not 0 < life <= LONGEST_LIFE_SECONDS:
        raise CredentialsError("the token endpoint's answer holds a token without a usable end")
    return Token(bearer, life)


def _reason(given: object) -> str:
    """Return what the endpoint says of its refusal (RFC 6749, 5.2)."""
    words = [given.get("error"), given.get("error_description")] if isinstance(given, dict) else ["no JSON object"]
    text = ": ".join(word for word in words if isinstance(word, str))
    return f" {provider_words(text, LONGEST_REASON)}" if text else ""
