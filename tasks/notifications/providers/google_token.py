"""The OAuth access token for Google: refreshed once, ahead of time, however many sends ask for it."""

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import orjson
from firebase_admin import credentials
from google.auth import jwt

from settings import ConfigurationError
from tasks.notifications.providers.token_endpoint import CredentialsError, Token, TokenEndpoint

__all__ = ["AccessToken", "CredentialsError"]

REFRESH_AHEAD_SECONDS = 300
# A token endpoint that fails is asked again after this long, not once per message.
FAILURE_HOLDS_SECONDS = 5

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS = 3600


class ServiceAccount:
    """A service account, read by firebase-admin, that signs for its token.

    https://developers.google.com/identity/protocols/oauth2/service-account
    """

    def __init__(self, account: dict[str, Any]) -> None:
        """Raise ValueError unless this is the JSON of a service account."""
        for name in ("project_id", "token_uri"):
            if not isinstance(account.get(name), str):
                raise ValueError(f'it has no "{name}"')
        certificate = credentials.Certificate(account)
        self._email, self._signer = certificate.service_account_email, certificate.signer
        self.project_id: str = account["project_id"]
        self._token_uri: str = account["token_uri"]

    async def fetch(self, endpoint: TokenEndpoint) -> Token:
        now = int(time.time())
        claims = {"iss": self._email, "scope": SCOPE, "aud": self._token_uri, "iat": now, "exp": now + ASSERTION_SECONDS}
        assertion = jwt.encode(self._signer, claims).decode()  # type: ignore[no-untyped-call]
        return await endpoint.ask(self._token_uri, {"grant_type": GRANT_TYPE, "assertion": assertion})


class AccessToken:
    """Access tokens by the credentials in a file; of a service account, its `token_uri` is honoured."""

    def __init__(self, path: Path) -> None:
        """Read the credentials; raise ConfigurationError where they are none."""
        try:
            account = orjson.loads(path.read_bytes())
            if not isinstance(account, dict):
                raise ValueError("it is no JSON object")
            self._credentials = ServiceAccount(account)
        except (OSError, ValueError, TypeError) as error:  # TypeError: a key under a password
            raise ConfigurationError(f"GOOGLE_APPLICATION_CREDENTIALS names an unusable file: {error}") from None
        self.project_id = self._credentials.project_id
        self._endpoint = TokenEndpoint()
        self._refreshing = asyncio.Lock()
        self._token, self._good_until = "", -math.inf
        self._failure: tuple[float, str] = (-math.inf, "")

    async def get(self) -> str:
        """Return a token that is good for minutes. Raise CredentialsError where Google gives none."""
        now = time.monotonic()
        if now < self._good_until - REFRESH_AHEAD_SECONDS:
            return self._token
        if now < self._good_until and self._refreshing.locked():
            return self._token
        async with self._refreshing:
            if time.monotonic() < self._good_until - REFRESH_AHEAD_SECONDS:
                return self._token
            await self._refresh()
        return self._token

    def reject(self, token: str) -> None:
        """Note that Google answered 401 to `token`: the next `get` fetches another."""
        if token == self._token:
            self._good_until = -math.inf

    async def close(self) -> None:
        """Close the connection to the token endpoint."""
        await self._endpoint.close()

    async def _refresh(self) -> None:
        """Fetch a token, unless that failed a moment ago. Raise CredentialsError without one, new or old, that is good."""
        failed_at, why = self._failure
        if time.monotonic() - failed_at >= FAILURE_HOLDS_SECONDS:
            asked_at = time.monotonic()
            try:
                token = await self._credentials.fetch(self._endpoint)
                self._token, self._good_until = token.bearer, asked_at + token.seconds
                return
            except CredentialsError as error:
                why = f"no access token from Google: {error}"
            self._failure = (time.monotonic(), why)
        if time.monotonic() >= self._good_until:
            raise CredentialsError(why)
