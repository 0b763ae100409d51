"""The OAuth access token for Google: refreshed once, ahead of time, however many sends ask for it."""

import asyncio
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
from firebase_admin import credentials
from google.auth import identity_pool, jwt
from google.auth.exceptions import GoogleAuthError

from settings import ConfigurationError
from tasks.notifications.outcome import provider_words
from tasks.notifications.providers.token_endpoint import (
    CALL_SECONDS,
    LONGEST_REASON,
    Credentials,
    CredentialsError,
    Token,
    TokenEndpoint,
    usable,
)

__all__ = ["AccessToken", "CredentialsError"]

REFRESH_AHEAD_SECONDS = 300
# A token endpoint that fails is asked again after this long, not once per message.
FAILURE_HOLDS_SECONDS = 5

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_SECONDS = 3600


def _see_texts(account: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(account.get(name), str):
            raise ValueError(f'it has no "{name}"')


class ServiceAccount:
    """A service account, read by firebase-admin, that signs for its token.

    https://developers.google.com/identity/protocols/oauth2/service-account
    """

    def __init__(self, account: dict[str, Any]) -> None:
        """Raise ValueError unless this is the JSON of a service account."""
        _see_texts(account, "token_uri")
        certificate = credentials.Certificate(account)
        self._email, self._signer = certificate.service_account_email, certificate.signer
        self._token_uri: str = account["token_uri"]

    async def fetch(self, endpoint: TokenEndpoint) -> Token:
        now = int(time.time())
        claims = {"iss": self._email, "scope": SCOPE, "aud": self._token_uri, "iat": now, "exp": now + ASSERTION_SECONDS}
        assertion = jwt.encode(self._signer, claims).decode()  # type: ignore[no-untyped-call]
        return await endpoint.ask(self._token_uri, {"grant_type": GRANT_TYPE, "assertion": assertion})


class WorkloadIdentity:
    """An external account: google-auth exchanges the token of a file or URL, with our client for its calls.

    https://google.aip.dev/auth/4117
    """

    def __init__(self, account: dict[str, Any]) -> None:
        """Raise ValueError unless this is the JSON of an external account, and its token comes from a file or URL."""
        source = account.get("credential_source")
        if not isinstance(source, dict) or source.keys().isdisjoint(("file", "url")):
            raise ValueError('its "credential_source" has neither "file" nor "url"; make one that has')
        _see_texts(account, "audience", "subject_token_type", "token_url")
        try:
            self._account = identity_pool.Credentials.from_info(account, scopes=[SCOPE])  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            raise ValueError(error) from None

    async def fetch(self, endpoint: TokenEndpoint) -> Token:
        loop = asyncio.get_running_loop()

        def request(url: str, method: str = "GET", body: bytes | None = None, headers: Any = None, **_: object) -> Any:
            asked = endpoint.transport.by_pyreqwest(method, url, headers or {}, body or b"")
            answer = asyncio.run_coroutine_threadsafe(asked, loop).result(CALL_SECONDS)
            return SimpleNamespace(status=answer.status, headers={}, data=answer.body)

        try:
            async with asyncio.timeout(CALL_SECONDS):
                await asyncio.to_thread(self._account.refresh, request)
            left = self._account.expiry - datetime.now(UTC).replace(tzinfo=None)
            return usable({"access_token": self._account.token, "expires_in": left.total_seconds()})
        except Exception as error:  # noqa: BLE001 - google-auth raises what it stumbles over
            raise CredentialsError(provider_words(str(error) or "no answer in time", LONGEST_REASON)) from None


class AccessToken:
    """Access tokens by the credentials in a file; of a service account, its `token_uri` is honoured."""

    def __init__(self, path: Path, called: str = "GOOGLE_APPLICATION_CREDENTIALS", project: str | None = None) -> None:
        """Read the credentials; raise ConfigurationError, with the name that they are called by, where they are none."""
        try:
            account = orjson.loads(path.read_bytes())
            if not isinstance(account, dict):
                raise ValueError("it is no JSON object")
            external = account.get("type") == "external_account"
            self._credentials: Credentials = WorkloadIdentity(account) if external else ServiceAccount(account)
            self.project_id: str = project or account.get("project_id", "")
            if not self.project_id or not isinstance(self.project_id, str):
                raise ValueError('it has no "project_id"; name the project beside it, as the app\'s fcm.project')
        except (OSError, ValueError, TypeError) as error:  # TypeError: a key under a password
            raise ConfigurationError(f"{called} names an unusable file: {error}") from None
        self._endpoint = TokenEndpoint()
        self._refreshing = asyncio.Lock()
        self._token, self._good_until = "", -math.inf
        self._failure: tuple[float, str] = (-math.inf, "")

    async def get(self) -> str:
        """Return a token that is good for minutes. Raise CredentialsError where Google gives none."""
        now = time.monotonic()
        ahead = 0 if self._refreshing.locked() else REFRESH_AHEAD_SECONDS
        if now >= self._good_until - ahead:
            async with self._refreshing:
                if time.monotonic() >= self._good_until - REFRESH_AHEAD_SECONDS:
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
