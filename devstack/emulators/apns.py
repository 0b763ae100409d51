"""APNs' provider API: it checks the provider token, headers and payload of a push, and accepts it.

A device token is any hex string of a real token's length; every one is a live device unless a fault rule says otherwise.
"""

import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import jwt
import orjson

from devstack.emulators import apns_answers
from devstack.emulators.answers import Answer, Message, Request, digest_of, notification_id_of
from devstack.emulators.keys import ensure_key

PATH_PREFIX = "/3/"
KEY_FILE = "apns-key.p8"
# What `apns-key.p8` may send for.
KEY_ID, TEAM_ID, TOPIC = "EMULATOR01", "CHATWORKER", "com.example.chat"

_DEVICE_PATH = "/3/device/"
_TOKEN_CHARACTERS = frozenset("0123456789abcdefABCDEF")
_TOKEN_LENGTHS = range(64, 201)
_BEARER = "bearer "
_PROVIDER_TOKEN_SECONDS = 3600
_CLOCK_SKEW_SECONDS = 60
_REMEMBERED_PROVIDER_TOKENS = 1000
_LIMIT_BYTES = 4096
_VOIP_LIMIT_BYTES = 5120
_COLLAPSE_ID_BYTES = 64
_PUSH_TYPES = frozenset(
    {
        "alert",
        "background",
        "complication",
        "controls",
        "fileprovider",
        "liveactivity",
        "location",
        "mdm",
        "pushtotalk",
        "voip",
        "widgets",
    }
)


def _is_uuid(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


# Optional headers: what a value must satisfy, and Apple's reason when it does not.
_HEADERS: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    ("apns-id", _is_uuid, "BadMessageId"),
    ("apns-push-type", _PUSH_TYPES.__contains__, "InvalidPushType"),
    ("apns-priority", frozenset({"1", "5", "10"}).__contains__, "BadPriority"),
    ("apns-expiration", str.isdecimal, "BadExpirationDate"),
    ("apns-collapse-id", lambda value: len(value.encode()) <= _COLLAPSE_ID_BYTES, "BadCollapseId"),
)


class Apns:
    name = "apns"
    logged = True
    faults = apns_answers.FAULTS

    def __init__(self, folder: Path) -> None:
        self._public_key = ensure_key(folder / KEY_FILE).public_key()
        self._issued_at = lru_cache(_REMEMBERED_PROVIDER_TOKENS)(self._verified)

    def receive(self, request: Request, body: bytes) -> Message | Answer:
        if request.http_version != "2":
            return apns_answers.ONLY_HTTP2
        refused = self._path_refusal(request) or self._token_refusal(request) or _header_refusal(request)
        if refused:
            return apns_answers.REFUSALS[refused]
        limit = _VOIP_LIMIT_BYTES if request.headers.get("apns-push-type") == "voip" else _LIMIT_BYTES
        if len(body) > limit:
            return apns_answers.REFUSALS["PayloadTooLarge"]
        payload = _object_of(body)
        if payload is None:
            return apns_answers.REFUSALS["PayloadEmpty"]
        return Message(
            request.path.removeprefix(_DEVICE_PATH),
            notification_id_of(payload),
            request.headers.get("apns-collapse-id"),
            request.headers.get("apns-id") or str(uuid.uuid4()).upper(),
            digest_of(_alert_of(payload)),
        )

    def accepted(self, message: Message) -> Answer:
        return Answer("accepted", 200, [("apns-id", message.name)], b"", accepts=True)

    def _path_refusal(self, request: Request) -> str | None:
        if not request.path.startswith(_DEVICE_PATH):
            return "BadPath"
        if request.method != "POST":
            return "MethodNotAllowed"
        token = request.path.removeprefix(_DEVICE_PATH)
        if not token:
            return "MissingDeviceToken"
        shaped = len(token) in _TOKEN_LENGTHS and len(token) % 2 == 0 and _TOKEN_CHARACTERS.issuperset(token)
        return None if shaped else "BadDeviceToken"

    def _token_refusal(self, request: Request) -> str | None:
        authorization = request.headers.get("authorization") or ""
        token = authorization[len(_BEARER) :]
        if not token or authorization[: len(_BEARER)].lower() != _BEARER:
            return "MissingProviderToken"
        issued_at, now = self._issued_at(token), time.time()
        if issued_at is None or issued_at > now + _CLOCK_SKEW_SECONDS:
            return "InvalidProviderToken"
        return "ExpiredProviderToken" if issued_at < now - _PROVIDER_TOKEN_SECONDS else None

    def _verified(self, token: str) -> float | None:
        """Given a provider token, return when it was issued, or None if it is not ours."""
        required: Any = {"require": ["iat", "iss"], "verify_iat": False}
        try:
            signed = jwt.decode_complete(token, self._public_key, algorithms=["ES256"], issuer=TEAM_ID, options=required)
        except jwt.PyJWTError:
            return None
        issued_at = signed["payload"]["iat"]
        return issued_at if signed["header"].get("kid") == KEY_ID and isinstance(issued_at, int | float) else None


def _header_refusal(request: Request) -> str | None:
    topic = request.headers.get("apns-topic")
    if not topic:
        return "MissingTopic"
    # A push type of its own, such as VoIP, goes to a topic with a suffix.
    if topic != TOPIC and not topic.startswith(f"{TOPIC}."):
        return "TopicDisallowed"
    for name, fits, reason in _HEADERS:
        value = request.headers.get(name)
        if value is not None and not fits(value):
            return reason
    return None


def _alert_of(payload: dict[str, Any]) -> Any:
    aps = payload.get("aps")
    return aps.get("alert") if isinstance(aps, dict) else None


def _object_of(body: bytes) -> dict[str, Any] | None:
    """Given a payload, return its JSON object or None. Apple names no reason for bad JSON: PayloadEmpty is assumed."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return payload if isinstance(payload, dict) and payload else None
