"""What is sent to FCM is what firebase-admin makes of the same message."""

from datetime import timedelta
from typing import Any

import orjson
from firebase_admin import messaging
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications.payload import Push
from tasks.notifications.providers.fcm import encode

TEXT = st.text(st.characters(codec="utf-8"), min_size=1)
PUSHES = st.builds(
    Push,
    title=TEXT,
    body=TEXT,
    data=st.dictionaries(st.sampled_from(("notification_id", "type", "message_id")), TEXT, min_size=1),
    collapse_key=st.integers(1).map(lambda n: f"notification-{n}"),
    thread=st.integers(1).map(lambda n: f"conversation-{n}"),
    badge=st.none() | st.integers(0, 10**6),
    sound=st.booleans(),
    expires_at=st.floats(0, 4e9),
    ttl=st.integers(0, 86_400),
)


def by_firebase_admin(push: Push) -> Any:
    """Return the message for a push as firebase-admin encodes it, with a topic: it refuses one without a target."""
    sound = "default" if push.sound else None
    return messaging._MessagingService.encode_message(
        messaging.Message(
            topic="all",
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


@given(PUSHES)
def test_a_push_is_encoded_as_firebase_admin_encodes_it(push: Push) -> None:
    assert {**orjson.loads(encode(push, push.body)), "topic": "all"} == by_firebase_admin(push)
