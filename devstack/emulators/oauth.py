"""Google's OAuth: the service account, the token endpoint that trades its signed JWT for a bearer, and the bearer check.

The grant is OAuth's JWT bearer (RFC 7523) as https://developers.google.com/identity/protocols/oauth2/service-account
describes it. A bearer is signed, not stored, so it lives through a restart of the emulator as Google's would.
"""

import json
import secrets
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from devstack.emulators.answers import TRANSPORT_FAULTS, Answer, Message, Request, json_answer

SERVICE_ACCOUNT_FILE = "service-account.json"
PROJECT = "demo-project"
DEFAULT_LIFETIME_SECONDS = 3600.0
TOKEN_PATH = "/token"  # noqa: S105 - a path, not a secret

# What Google's bearers begin with.
_PREFIX = "ya29."
_REMEMBERED_BEARERS = 1000
_SECRET_FILE = "oauth-secret"  # noqa: S105 - a file name
_CLIENT_EMAIL = f"chat-workers@{PROJECT}.iam.gserviceaccount.com"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPES = frozenset({"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"})
# google-auth signs for Google's own endpoint whatever token_uri says; other clients sign for token_uri.
_GOOGLES_AUDIENCE = "https://oauth2.googleapis.com/token"
_LONGEST_ASSERTION_SECONDS = 3600
_CLOCK_SKEW_SECONDS = 10
_UNREASONABLE = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)
# The first class that the error is an instance of decides: subclasses come first.
_REFUSALS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.InvalidIssuerError, "Invalid grant: account not found"),
    (jwt.InvalidAudienceError, "Invalid JWT: Failed audience check. The right audience is {audience}"),
    (jwt.ExpiredSignatureError, _UNREASONABLE),
    (jwt.ImmatureSignatureError, _UNREASONABLE),
    (jwt.MissingRequiredClaimError, _UNREASONABLE),
    (jwt.PyJWTError, "Invalid JWT Signature."),
)


def _error(status: int, error: str, description: str) -> Answer:
    return json_answer(error, status, {"error": error, "error_description": description})


FAULTS: dict[str, Answer] = {
    **TRANSPORT_FAULTS,
    "invalid_grant": _error(400, "invalid_grant", "Invalid JWT Signature."),
    "account_disabled": _error(400, "invalid_grant", "Invalid grant: account not found"),
    "internal": json_answer("internal", 500, {"error": "internal_failure"}),
    "unavailable": json_answer("unavailable", 503, {"error": "temporarily_unavailable"}),
}


def ensure_service_account(folder: Path, token_uri: str) -> dict[str, str]:
    """Return the folder's service account, which is made on the first start, for the token endpoint at `token_uri`."""
    path = folder / SERVICE_ACCOUNT_FILE
    if not path.exists():
        path.write_text(json.dumps(_new_account(token_uri), indent=2))
    account: dict[str, str] = json.loads(path.read_text())
    return account


def _new_account(token_uri: str) -> dict[str, str]:
    # Half as long as Google's, for each process that reads it checks it: that takes 8 ms of CPU, not 55.
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": secrets.token_hex(20),
        "private_key": pem.decode(),
        "client_email": _CLIENT_EMAIL,
        "client_id": "100000000000000000001",
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }


class OAuth:
    """The token endpoint. As a provider its 'device token' in fault rules is the account's client_email."""

    name = "oauth"
    logged = False
    faults = FAULTS

    def __init__(self, folder: Path, token_uri: str) -> None:
        self.lifetime = DEFAULT_LIFETIME_SECONDS
        self._account = ensure_service_account(folder, token_uri)
        private = serialization.load_pem_private_key(self._account["private_key"].encode(), password=None)
        self._public_key = cast(rsa.RSAPrivateKey, private).public_key()
        self._secret_file = folder / _SECRET_FILE
        self.expiry = lru_cache(_REMEMBERED_BEARERS)(self._expiry)
        if not self._secret_file.exists():
            self.revoke()
        self._secret = self._secret_file.read_bytes()

    def receive(self, request: Request, body: bytes) -> Message | Answer:
        if request.method != "POST":
            return _error(405, "invalid_request", "Only POST is allowed")
        form = parse_qs(body.decode("ascii", "replace"))
        grant = form.get("grant_type", [""])[0]
        if grant != _GRANT:
            return _error(400, "unsupported_grant_type", f"Invalid grant_type: {grant}")
        assertion = form.get("assertion", [""])[0]
        if not assertion:
            return _error(400, "invalid_request", "Missing required parameter: assertion")
        return self._refusal(assertion) or Message(_CLIENT_EMAIL, None, None, self._issue())

    def accepted(self, message: Message) -> Answer:
        grant = {"access_token": message.name, "expires_in": int(self.lifetime), "token_type": "Bearer"}
        return json_answer("accepted", 200, grant)

    def revoke(self) -> None:
        """Make every bearer given out so far unknown."""
        self._secret = secrets.token_bytes(32)
        self._secret_file.write_bytes(self._secret)
        self.expiry.cache_clear()

    def _expiry(self, bearer: str) -> float | None:
        """Return when a bearer expires (Unix time), or None for one that this endpoint never gave out."""
        signed = bearer.removeprefix(_PREFIX)
        try:
            expiry: float = jwt.decode(signed, self._secret, algorithms=["HS256"], options={"verify_exp": False})["exp"]
        except jwt.PyJWTError:
            return None
        return expiry

    def _refusal(self, assertion: str) -> Answer | None:
        audience = self._account["token_uri"]
        try:
            claims: dict[str, Any] = jwt.decode(
                assertion,
                self._public_key,
                algorithms=["RS256"],
                audience=[audience, _GOOGLES_AUDIENCE],
                issuer=self._account["client_email"],
                leeway=_CLOCK_SKEW_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            description = next(text for kind, text in _REFUSALS if isinstance(error, kind))
            return _error(400, "invalid_grant", description.format(audience=audience))
        if int(claims["exp"]) - int(claims["iat"]) > _LONGEST_ASSERTION_SECONDS:
            return _error(400, "invalid_grant", _UNREASONABLE)
        if _SCOPES.isdisjoint(str(claims.get("scope", "")).split()):
            return _error(400, "invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        return None

    def _issue(self) -> str:
        claims = {"exp": time.time() + self.lifetime, "jti": secrets.token_hex(8)}
        return _PREFIX + jwt.encode(claims, self._secret, "HS256")
