"""The OAuth access token for Google: refreshed once, ahead of time, however many sends ask for it."""

import asyncio
import json
import math
import re
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import requests
from firebase_admin import credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

from settings import ConfigurationError
from tasks.notifications.outcome import provider_words

REFRESH_AHEAD_SECONDS = 300
REQUEST_SECONDS = 10
# A token endpoint that fails is asked again after this long, not once per message.
FAILURE_HOLDS_SECONDS = 5
# What google-auth meets in an answer that is not as it ought to be: it checks neither the types nor the encoding.
_MALFORMED = (ValueError, TypeError, AttributeError, LookupError, OverflowError)
_BEARER = re.compile(r"[\x21-\x7e]+")  # what a header may carry


class CredentialsError(Exception):
    """No access token is to be had; the text says why."""


class AccessToken:
    """Access tokens for a service account, through firebase-admin's own credentials (its `token_uri` is honoured)."""

    def __init__(self, service_account: Path, certificates: Path | None = None) -> None:
        """Read the service-account file; raise ConfigurationError where it is none."""
        try:
            account = json.loads(service_account.read_text())
            if not isinstance(account, dict):
                raise ValueError("it is no JSON object")
            certificate = credentials.Certificate(account)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"GOOGLE_APPLICATION_CREDENTIALS names an unusable file: {error}") from None
        self.project_id: str = certificate.project_id
        self._credential = certificate.get_credential()
        # Given with each request: requests lets REQUESTS_CA_BUNDLE win over a session's own setting.
        trusted = {"verify": str(certificates)} if certificates else {}
        self._request = partial(Request(requests.Session()), timeout=REQUEST_SECONDS, **trusted)
        self._refreshing = asyncio.Lock()
        self._token, self._good_until = "", 0.0
        self._failure: tuple[float, str] = (-math.inf, "")

    async def get(self) -> str:
        """Return a token that is good for minutes. Raise CredentialsError where Google gives none."""
        now = time.time()
        if now < self._good_until - REFRESH_AHEAD_SECONDS:
            return self._token
        if now < self._good_until and self._refreshing.locked():
            return self._token
        async with self._refreshing:
            if time.time() < self._good_until - REFRESH_AHEAD_SECONDS:
                return self._token
            await self._refresh()
        return self._token

    def reject(self, token: str) -> None:
        """Note that Google answered 401 to `token`: the next `get` fetches another."""
        if token == self._token:
            self._good_until = 0.0

    async def _refresh(self) -> None:
        """Fetch a token, unless that failed a moment ago. Raise CredentialsError without one, new or old, that is good."""
        failed_at, why = self._failure
        if time.monotonic() - failed_at >= FAILURE_HOLDS_SECONDS:
            try:
                await asyncio.to_thread(self._credential.refresh, self._request)
                self._token, self._good_until = _checked(self._credential.token, self._credential.expiry)
                return
            except (GoogleAuthError, requests.RequestException) as error:
                why = f"no access token from Google: {_root_cause(error)}"
            except _MALFORMED as error:
                why = f"no access token from Google: its answer cannot be read ({type(error).__name__})"
            self._failure = (time.monotonic(), why)
        if time.time() >= self._good_until:
            raise CredentialsError(why)


def _checked(token: object, expiry: datetime | None) -> tuple[str, float]:
    """Return a token and its end in Unix seconds. Raise ValueError unless it can be sent and is good now."""
    if not isinstance(token, str) or not _BEARER.fullmatch(token) or expiry is None:
        raise ValueError("the answer holds no token")
    good_until = expiry.replace(tzinfo=UTC).timestamp()
    if good_until <= time.time():
        raise ValueError("the token is of the past")
    return token, good_until


def _root_cause(error: BaseException) -> str:
    """Return the innermost error's text: the outer ones wrap it in pages of repetition."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return provider_words(error, 120)
