"""FCM HTTP v1: it checks the bearer, project, shape and size of a message, and accepts it.

Every non-empty token is a live device unless a fault rule says otherwise. The size of a message is counted as the
UTF-8 bytes of its compact JSON without the target. Google says "4096 bytes" without saying of what (the sum of keys and
values, platform blocks merged, is as likely), so a message that just passes here may not pass there: leave a margin.
"""

import time
from itertools import count
from typing import Any

import orjson

from devstack.emulators import fcm_answers
from devstack.emulators.answers import JSON_UTF8, Answer, Message, Request, digest_of
from devstack.emulators.fcm_message import TARGETS, Violation, violations_of
from devstack.emulators.oauth import PROJECT, OAuth

PATH_PREFIX = "/v1/projects/"

_SEND_PATH = f"{PATH_PREFIX}{PROJECT}/messages:send"
_ANY_SEND_SUFFIX = "/messages:send"
_BEARER = "Bearer "
_LIMIT_BYTES = 4096
_TOPIC_LIMIT_BYTES = 2048
_LONGEST_TTL_SECONDS = 2_419_200
_DRY_RUN_NAME = f"projects/{PROJECT}/messages/fake_message_id"
_RESERVED_DATA_KEYS = ("google", "gcm")
_RESERVED_DATA_WORDS = frozenset({"from", "message_type"})


class Fcm:
    name = "fcm"
    logged = True
    faults = fcm_answers.FAULTS

    def __init__(self, oauth: OAuth) -> None:
        self._oauth = oauth
        self._started = int(time.time() * 1_000_000)
        self._numbers = count(1)

    def receive(self, request: Request, body: bytes) -> Message | Answer:
        if request.method != "POST" or not request.path.endswith(_ANY_SEND_SUFFIX):
            return fcm_answers.NOT_FOUND_PAGE
        if (refusal := self._unauthorised(request)) is not None:
            return refusal
        if request.path != _SEND_PATH:
            return fcm_answers.WRONG_PROJECT
        try:
            content = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return fcm_answers.invalid_shape([Violation("", f"Invalid JSON payload received. {error}")])
        if violations := violations_of(content):
            return fcm_answers.invalid_shape(violations)
        return self._message(content, len(body))

    def accepted(self, message: Message) -> Answer:
        outcome = "validated" if message.dry_run else "accepted"
        return Answer(outcome, 200, JSON_UTF8, b'{\n  "name": "%b"\n}\n' % message.name.encode(), not message.dry_run)

    def _unauthorised(self, request: Request) -> Answer | None:
        credentials = request.headers.get("authorization")
        if credentials is None or not credentials.startswith(_BEARER):
            return fcm_answers.NO_CREDENTIALS
        expiry = self._oauth.expiry(credentials[len(_BEARER) :])
        return None if expiry is not None and time.time() < expiry else fcm_answers.BAD_CREDENTIALS

    def _message(self, content: dict[str, Any], body_bytes: int) -> Message | Answer:
        message = content.get("message") or {}
        targets = [target for target in TARGETS if message.get(target)]
        if not targets:
            return fcm_answers.invalid_argument("Recipient of the message is not set.")
        if len(targets) > 1:
            text = f"oneof field 'target' is already set. Cannot set '{targets[1]}'"
            return fcm_answers.invalid_shape([Violation("message", f"Invalid value at 'message' (oneof), {text}")])
        android = message.get("android") or {}
        data = message.get("data") or {}
        if refusal := _refused_data(data) or _refused_ttl(android.get("ttl")):
            return refusal
        limit = _LIMIT_BYTES if targets[0] in ("token", "fid") else _TOPIC_LIMIT_BYTES
        # The whole body is never shorter than the part that counts, so most messages need no second encoding.
        if body_bytes > limit and _counted_bytes(message) > limit:
            return fcm_answers.TOO_BIG
        dry_run = bool(content.get("validate_only") or content.get("validateOnly"))
        return Message(
            message[targets[0]],
            data.get("notification_id"),
            android.get("collapse_key") or android.get("collapseKey"),
            _DRY_RUN_NAME if dry_run else f"projects/{PROJECT}/messages/0:{self._started}%{next(self._numbers):016x}",
            digest_of(message.get("notification") or android.get("data")),
            dry_run,
            message,
        )


def _counted_bytes(message: dict[str, Any]) -> int:
    return len(orjson.dumps({name: value for name, value in message.items() if name not in TARGETS}))


def _refused_data(data: dict[str, str]) -> Answer | None:
    for key in data:
        if key in _RESERVED_DATA_WORDS or key.startswith(_RESERVED_DATA_KEYS):
            return fcm_answers.invalid_argument(f"Invalid data payload key: {key}", "message.data")
    return None


def _refused_ttl(ttl: str | None) -> Answer | None:
    if ttl is None or 0 <= float(ttl[:-1]) <= _LONGEST_TTL_SECONDS:
        return None
    return fcm_answers.invalid_argument("Invalid TTL: it must be between 0 and 2419200 seconds", "message.android.ttl")
