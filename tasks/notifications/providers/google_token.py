"""The OAuth access token for Google: refreshed once, ahead of time, however many sends ask for it.

google-auth says what is asked of whom, for a service account as for a workload identity; our client asks, within one deadline.
"""

import asyncio
import math
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson

from settings import ConfigurationError
from tasks.notifications.outcome import provider_words
from tasks.notifications.providers.transport import Transport

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
CALL_SECONDS = 10.0
"""For all requests that one token takes, from connecting to the last answer's last byte."""
REFRESH_AHEAD_SECONDS, REFRESH_AHEAD_SHARE = 300, 0.5
"""A token is renewed so long before its end, but not in the first half of its life."""
# A token endpoint that fails is asked again after this long, not once per message.
FAILURE_HOLDS_SECONDS = 5
LONGEST_REASON = 120
BEARER = re.compile(r"[\x21-\x7e]+")  # what a header may carry


class CredentialsError(Exception):
    """No access token is to be had; the text says why."""


def _read(account: Any) -> Any:
    """Return google-auth's credentials of a service account or a workload identity (https://google.aip.dev/auth/4117).

    Raise ValueError or GoogleAuthError where it is neither, or its token comes from elsewhere than a file or URL.
    """
    # Here, for they take 50 ms to import, and most processes send nothing.
    from firebase_admin import credentials
    from google.auth import identity_pool

    if not isinstance(account, dict):
        raise ValueError("it is no JSON object")
    external = account.get("type") == "external_account"
    for name in ("audience", "subject_token_type", "token_url") if external else ("token_uri",):
        if not isinstance(account.get(name), str):
            raise ValueError(f'it has no "{name}"')
    if not external:
        return credentials.Certificate(account).get_credential().with_scopes([SCOPE])
    source = account.get("credential_source")
    if not isinstance(source, dict) or source.keys().isdisjoint(("file", "url")):
        raise ValueError('its "credential_source" has neither "file" nor "url"; make one that has')
    return identity_pool.Credentials.from_info(account, scopes=[SCOPE])  # type: ignore[no-untyped-call]


class AccessToken:
    """Access tokens by the credentials in a file; of a service account, its `token_uri` is honoured."""

    def __init__(self, path: Path, called: str = "GOOGLE_APPLICATION_CREDENTIALS", project: str | None = None) -> None:
        """Read the credentials; raise ConfigurationError, with the name that they are called by, where they are none."""
        from google.auth.exceptions import GoogleAuthError

        try:
            account = orjson.loads(path.read_bytes())
            self._credentials = _read(account)
            self.project_id: str = project or account.get("project_id", "")
            if not self.project_id or not isinstance(self.project_id, str):
                raise ValueError('it has no "project_id"; name the project beside it, as the app\'s fcm.project')
        except (OSError, ValueError, TypeError, GoogleAuthError) as error:  # TypeError: a key under a password
            raise ConfigurationError(f"{called} names an unusable file: {error}") from None
        self._transport = Transport(in_flight=1, seconds=CALL_SECONDS)
        self._refreshing = asyncio.Lock()
        self._token, self._renew_at, self._good_until = "", -math.inf, -math.inf
        self._failure: tuple[float, str] = (-math.inf, "")

    async def get(self) -> str:
        """Return a token that is good for now, as a rule for minutes. Raise CredentialsError where Google gives none."""
        if time.monotonic() >= (self._good_until if self._refreshing.locked() else self._renew_at):
            async with self._refreshing:
                if time.monotonic() >= self._renew_at:
                    await self._refresh()
        return self._token

    def reject(self, token: str) -> None:
        """Note that Google answered 401 to `token`: the next `get` fetches another."""
        if token == self._token:
            self._renew_at = self._good_until = -math.inf

    async def close(self) -> None:
        """Close the connections to the token endpoints."""
        await self._transport.close()

    async def _refresh(self) -> None:
        """Fetch a token, unless that failed a moment ago. Raise CredentialsError without one, new or old, that is good."""
        failed_at, why = self._failure
        if time.monotonic() - failed_at >= FAILURE_HOLDS_SECONDS:
            try:
                self._token, self._renew_at, self._good_until = await self._fetch()
                return
            except Exception as error:  # noqa: BLE001 - google-auth raises what it stumbles over
                words = provider_words(next(iter(error.args), "no answer in time"), LONGEST_REASON)
                why = f"no access token from Google: {words}"
            self._failure = (time.monotonic(), why)
        if time.monotonic() >= self._good_until:
            raise CredentialsError(why)

    async def _fetch(self) -> tuple[str, float, float]:
        """Return a new token that a header may carry, when to renew it, and its end by the monotonic clock. Raise Exception."""
        loop, asked_at = asyncio.get_running_loop(), time.monotonic()

        def request(url: str, method: str = "GET", body: bytes | None = None, headers: Any = None, **_: object) -> Any:
            as_it_is = {**(headers or {}), "accept-encoding": "identity"}
            asked = self._transport.by_pyreqwest(method, url, as_it_is, body or b"")
            answer = asyncio.run_coroutine_threadsafe(asked, loop).result(CALL_SECONDS)
            if answer.status != 200:  # google-auth would ask again, and wait in between
                said = [answer.content.get(name) for name in ("error", "error_description")]  # RFC 6749, 5.2
                words = ": ".join(word for word in said if isinstance(word, str))
                raise CredentialsError(f"the token endpoint answered {answer.status} {words}".rstrip())
            return SimpleNamespace(status=200, headers={}, data=answer.body)

        async with asyncio.timeout(CALL_SECONDS):
            await asyncio.to_thread(self._credentials.refresh, request)
        token, end = self._credentials.token, self._credentials.expiry
        seconds = (end - datetime.now(UTC).replace(tzinfo=None)).total_seconds() if end else 0
        if not isinstance(token, str) or not BEARER.fullmatch(token) or seconds <= 0:
            raise CredentialsError("the token endpoint's answer holds no token that can be used, or one without an end")
        end_at = asked_at + seconds
        return token, end_at - min(REFRESH_AHEAD_SECONDS, REFRESH_AHEAD_SHARE * seconds), end_at
