"""Rows, devices and JSON made for the tests: what matters is said by the test, the rest is ordinary."""

from typing import Any

import hypothesis.strategies as st

from tasks.notifications.devices import Device, device_key
from tasks.notifications.notification import Notification

# Noon on some day: the database's clock, in Unix seconds.
NOW = 1_800_000_000.0


# What a reader sees as one character, by kind. None of them joins with its neighbour.
CLUSTERS: dict[str, str] = {
    "a letter": "a",
    "two bytes": "é",
    "three bytes": "€",
    "four bytes": "🚚",
    "a letter of the supplementary plane": "𝔘",
    "a combining mark": "e\u0301",
    "a pile of marks": "Z\u0351\u036b\u0343\u036a",
    "a skin tone": "👍🏽",
    "a family": "👨‍👩‍👧‍👦",
    "a profession with a skin tone": "👩🏽‍🚀",
    "a flag": "🇸🇮",
    "a flag of tags": "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "a flag made by joining": "🏳️‍🌈",
    "a keycap": "1️⃣",
    "a heart as emoji": "❤️",
    "Hangul in parts": "\u1112\u1161\u11ab",
    "Devanagari with a vowel sign": "नि",
    "Arabic with a mark": "بَ",
    "Hebrew with points": "שָׁ",
    "Thai with a vowel": "กำ",
    "a line break": "\r\n",
}


def a_notification(**changes: Any) -> Notification:
    """A row written a minute ago and claimed for the first time, unless `changes` say otherwise."""
    values: dict[str, Any] = {
        "id": 7,
        "conversation_id": 5,
        "message_id": 6,
        "recipient_id": 2,
        "sender_id": 1,
        "notification_type": "MESSAGE",
        "title": "New message from Ana",
        "body": "When can you deliver?",
        "device_tokens": '["phone"]',
        "is_sent": False,
        "created_at": NOW - 60,
        "conversation_uuid": "550e8400-e29b-41d4-a716-446655440000",
        "message_uuid": "7c9a3a0e-5f5e-4a3a-9a39-5a0c9ad1a0e6",
    }
    return Notification(**(values | changes))


def a_device(token: str, provider: str = "fcm") -> Device:
    """A device whose key can be looked up by `key_of`."""
    return Device(provider, token, device_key(provider, token))


def key_of(token: str, provider: str = "fcm") -> str:
    """The key of `a_device(token, provider)`."""
    return device_key(provider, token)


def json_values(words: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Any JSON value; `words` turn up among its keys and texts, so that wrong types appear where they hurt."""
    texts = st.sampled_from(words) | st.text(max_size=8) if words else st.text(max_size=8)
    numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )
