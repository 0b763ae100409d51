"""What is sent to FCM is, byte for byte, what firebase-admin makes of the message."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications.payload import Push
from tasks.notifications.providers.fcm_message import encode, message

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


@given(PUSHES)
def test_the_template_gives_the_bytes_of_the_message(push: Push) -> None:
    assert encode(push, push.body) == orjson.dumps(message(push))


def test_a_text_that_looks_like_a_place_of_the_template_is_a_text() -> None:
    push = Push("<body of the push>", "<title of the push>", {"type": "<key of the push>"}, "k", "t", 7_000_003, True, 1.0, 1)
    assert encode(push, push.body) == orjson.dumps(message(push))
