"""The v1 message of FCM: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages#resource:-message."""

from typing import Any

import orjson

from tasks.notifications.payload import Push


def encode(push: Push, body: str) -> bytes:
    """Return the JSON of a push without its target, with `body` for its body."""
    key, ttl = push.collapse_key, push.ttl
    android: dict[str, Any] = {"tag": key}
    aps: dict[str, Any] = {"thread-id": push.thread}
    webpush: dict[str, Any] = {"tag": key}
    if push.badge is not None:
        android["notification_count"] = aps["badge"] = push.badge
    if push.sound:
        android["sound"] = aps["sound"] = "default"
    else:
        webpush["silent"] = True
    return orjson.dumps(
        {
            "notification": {"title": push.title, "body": body},
            "data": push.data,
            "android": {"collapse_key": key, "priority": "high", "ttl": f"{ttl}s", "notification": android},
            "apns": {
                "headers": {
                    "apns-collapse-id": key,
                    "apns-expiration": str(int(push.expires_at)),
                    "apns-priority": "10",
                },
                "payload": {"aps": aps},
            },
            "webpush": {"headers": {"TTL": str(ttl), "Urgency": "high", "Topic": key}, "notification": webpush},
        }
    )
