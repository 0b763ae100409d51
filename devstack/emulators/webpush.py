"""Web Push: it checks VAPID credentials, headers and body of a push (RFC 8030, 8292), and decrypts it as a browser.

Every subscription of `subscriptions.py` is live and bound to the key in vapid-key.pem. Bodies are decrypted with the
browser's own private key (RFC 8291): only what the browser can read is logged as accepted; the rest gets the same 201,
as from a real service, but is counted as `undecryptable`.
"""

import re
import time
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import http_ece
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devstack.emulators import webpush_answers
from devstack.emulators.answers import Answer, Message, Request, digest_of, notification_id_of
from devstack.emulators.keys import ensure_key
from devstack.emulators.subscriptions import PATH_PREFIX, Browser, browser, decode, encode

KEY_FILE = "vapid-key.pem"

_SCHEME = "vapid "
_LONGEST_TOKEN_SECONDS = 24 * 3600
_CLOCK_SKEW_SECONDS = 60
_REMEMBERED_TOKENS = 1000
_LIMIT_BYTES = 4096
_URGENCIES = frozenset({"very-low", "low", "normal", "high"})
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
_SUBJECTS = ("mailto:", "https:")


class WebPush:
    name = "webpush"
    logged = True
    faults = webpush_answers.FAULTS

    def __init__(self, folder: Path) -> None:
        public_key = ensure_key(folder / KEY_FILE).public_key()
        self._application_server_key = encode(public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
        self._started = int(time.time() * 1000)
        self._numbers = count(1)

    def receive(self, request: Request, body: bytes) -> Message | Answer:
        token = request.path.removeprefix(PATH_PREFIX)
        receiver = browser(token)
        if receiver is None or request.method != "POST":
            return webpush_answers.NOT_FOUND
        origin = f"{request.scheme}://{request.authority or request.headers.get('host')}"
        refusal = self._unauthorised(request, origin) or _header_refusal(request, body)
        if refusal:
            return refusal
        name = f"{origin}/message/{self._started}-{next(self._numbers)}"
        try:
            payload = _decrypted(receiver, body) if body else {}
        except (http_ece.ECEException, ValueError):
            return Answer("undecryptable", 201, [("location", name)], b"")
        return Message(token, notification_id_of(payload), request.headers.get("topic"), name, digest_of(payload))

    def accepted(self, message: Message) -> Answer:
        return Answer("accepted", 201, [("location", message.name)], b"", accepts=True)

    def _unauthorised(self, request: Request, origin: str) -> Answer | None:
        authorization = request.headers.get("authorization")
        if authorization is None:
            return webpush_answers.NO_AUTHORIZATION
        parameters = _parameters(authorization)
        expiry = _verified(parameters.get("t", ""), parameters.get("k", ""), origin)
        if expiry is None or expiry < time.time():
            return webpush_answers.BAD_AUTHORIZATION
        return None if parameters["k"] == self._application_server_key else webpush_answers.KEY_MISMATCH


@lru_cache(_REMEMBERED_TOKENS)
def _verified(token: str, key: str, origin: str) -> float | None:
    """Given a VAPID token and the key that came with it, return when it expires, or None if RFC 8292 refuses it."""
    try:
        public_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decode(key))
        claims = jwt.decode(token, public_key, algorithms=["ES256"], audience=origin, options={"require": ["aud", "exp"]})
        expiry = float(claims["exp"])
    except (jwt.PyJWTError, ValueError):
        return None
    latest = time.time() + _LONGEST_TOKEN_SECONDS + _CLOCK_SKEW_SECONDS
    fits = str(claims.get("sub", "")).startswith(_SUBJECTS) and expiry <= latest
    return expiry if fits else None


def _parameters(authorization: str) -> dict[str, str]:
    if not authorization.lower().startswith(_SCHEME):
        return {}
    pairs = (part.strip().partition("=") for part in authorization[len(_SCHEME) :].split(","))
    return {name: value for name, _, value in pairs}


def _header_refusal(request: Request, body: bytes) -> Answer | None:
    ttl, topic = request.headers.get("ttl"), request.headers.get("topic")
    if ttl is None:
        return webpush_answers.NO_TTL
    if not ttl.isdecimal():
        return webpush_answers.BAD_TTL
    if topic is not None and not _TOPIC.fullmatch(topic):
        return webpush_answers.BAD_TOPIC
    if request.headers.get("urgency", "normal") not in _URGENCIES:
        return webpush_answers.BAD_URGENCY
    if body and request.headers.get("content-encoding") != "aes128gcm":
        return webpush_answers.BAD_ENCODING
    return webpush_answers.TOO_LARGE if len(body) > _LIMIT_BYTES else None


def _decrypted(receiver: Browser, body: bytes) -> dict[str, Any]:
    """Given the browser, return the JSON object in a body. Raise ECEException or ValueError if it reads none."""
    plain = http_ece.decrypt(body, private_key=receiver.private_key, auth_secret=receiver.auth)
    payload = orjson.loads(plain)
    if not isinstance(payload, dict):
        raise ValueError("a payload is a JSON object")
    return payload
