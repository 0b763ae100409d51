"""The v1 message of FCM: firebase-admin encodes each shape of it once, each push fills in its values."""

import re
from datetime import timedelta
from functools import cache
from typing import Any

import orjson
from firebase_admin import messaging

from tasks.notifications.payload import Push

_encode = messaging._MessagingService.encode_message

# What stands in a template for the values of a push: nothing else in a message looks like these.
_TITLE, _BODY, _DATA, _KEY, _THREAD = (f"<{name} of the push>" for name in ("title", "body", "data", "key", "thread"))
_EXPIRES_AT, _TTL, _BADGE = 7_000_000_001, 7_000_002, 7_000_003
_PLACES = {
    orjson.dumps(place): name
    for place, name in {
        _TITLE: "title",
        _BODY: "body",
        _KEY: "key",
        _THREAD: "thread",
        str(_EXPIRES_AT): "expires_at",
        str(_TTL): "ttl",
        f"{_TTL}s": "ttl_seconds",
        _BADGE: "badge",
    }.items()
} | {orjson.dumps({_DATA: _DATA}): "data"}
_SPLIT = re.compile(b"(" + b"|".join(re.escape(place) for place in _PLACES) + b")")


def encode(push: Push, body: str) -> bytes:
    """Return the JSON of `message(push)`, with `body` for its body: the same bytes, in a tenth of the time."""
    fixed, names = _template(badge=push.badge is not None, sound=push.sound)
    ttl = b"%d" % push.ttl
    values = {
        "title": orjson.dumps(push.title),
        "body": orjson.dumps(body),
        "data": orjson.dumps(push.data),
        "key": orjson.dumps(push.collapse_key),
        "thread": orjson.dumps(push.thread),
        "expires_at": b'"%d"' % int(push.expires_at),
        "ttl": b'"' + ttl + b'"',
        "ttl_seconds": b'"' + ttl + b's"',
        "badge": b"%d" % (push.badge or 0),
    }
    parts = [fixed[0]]
    for name, text in zip(names, fixed[1:], strict=True):
        parts += (values[name], text)
    return b"".join(parts)


@cache
def _template(*, badge: bool, sound: bool) -> tuple[list[bytes], list[str]]:
    """Return the fixed texts of a message, and which value goes between each two of them."""
    push = Push(_TITLE, _BODY, {_DATA: _DATA}, _KEY, _THREAD, _BADGE if badge else None, sound, _EXPIRES_AT, _TTL)
    parts = _SPLIT.split(orjson.dumps(message(push)))
    return parts[::2], [_PLACES[place] for place in parts[1::2]]


def message(push: Push) -> dict[str, Any]:
    """Return the v1 Message for a push without its target, as firebase-admin encodes it."""
    sound = "default" if push.sound else None
    encoded: dict[str, Any] = _encode(
        messaging.Message(
            topic="-",  # firebase-admin refuses a message without a target; the token is put in per device
            notification=messaging.Notification(title=push.title, body=push.body),
            data=push.data,
            android=messaging.AndroidConfig(
                collapse_key=push.collapse_key,
                priority="high",
                ttl=timedelta(seconds=push.ttl),
                notification=messaging.AndroidNotification(tag=push.collapse_key, sound=sound, notification_count=push.badge),
            ),
            apns=messaging.APNSConfig(
                headers={
                    "apns-collapse-id": push.collapse_key,
                    "apns-expiration": str(int(push.expires_at)),
                    "apns-priority": "10",
                },
                payload=messaging.APNSPayload(messaging.Aps(badge=push.badge, sound=sound, thread_id=push.thread)),
            ),
            webpush=messaging.WebpushConfig(
                headers={"TTL": str(push.ttl), "Urgency": "high", "Topic": push.collapse_key},
                notification=messaging.WebpushNotification(tag=push.collapse_key, silent=None if push.sound else True),
            ),
        )
    )
    del encoded["topic"]
    return encoded
