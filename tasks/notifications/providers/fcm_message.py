"""The v1 message of FCM: firebase-admin encodes each shape of it once, each push fills in its values."""

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
    orjson.dumps(_TITLE): b"%(title)b",
    orjson.dumps(_BODY): b"%(body)b",
    orjson.dumps({_DATA: _DATA}): b"%(data)b",
    orjson.dumps(_KEY): b"%(key)b",
    orjson.dumps(_THREAD): b"%(thread)b",
    b"%d" % _EXPIRES_AT: b"%(expires_at)d",
    b"%d" % _TTL: b"%(ttl)d",
    b"%d" % _BADGE: b"%(badge)d",
}


def encode(push: Push, body: str) -> bytes:
    """Return the JSON of `message(push)`, with `body` for its body: the same bytes, in a tenth of the time."""
    return _template(push.badge is not None, push.sound) % {
        b"title": orjson.dumps(push.title),
        b"body": orjson.dumps(body),
        b"data": orjson.dumps(push.data),
        b"key": orjson.dumps(push.collapse_key),
        b"thread": orjson.dumps(push.thread),
        b"expires_at": int(push.expires_at),
        b"ttl": push.ttl,
        b"badge": push.badge,
    }


@cache
def _template(badge: bool, sound: bool) -> bytes:
    """Return the JSON of a message with a place for each value, as bytes' `%` fills them in."""
    push = Push(_TITLE, _BODY, {_DATA: _DATA}, _KEY, _THREAD, _BADGE if badge else None, sound, _EXPIRES_AT, _TTL)
    template = orjson.dumps(message(push)).replace(b"%", b"%%")
    for value, place in _PLACES.items():
        template = template.replace(value, place)
    return template


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
