"""The content of a push for every provider: title, body, data, collapse key, badge, sound, lifetime."""

from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import regex

from tasks.notifications.apps import DEFAULT, App
from tasks.notifications.notification import LIFETIME_SECONDS, Notification

# FCM, APNs and Web Push agree on it: 4096 bytes of payload.
MOST_BYTES = 4096

ELLIPSIS = "…"
# In code points: the longest emoji has fourteen; beyond that are only piles of marks.
LONGEST_CLUSTER = 64
_GRAPHEME = regex.compile(r"\X")


class Push(NamedTuple):
    """A notification as a push, before a provider shapes it."""

    title: str
    body: str
    data: dict[str, str]
    collapse_key: str
    """The same at every attempt, so that a repeat replaces what the device already shows."""
    thread: str
    """The conversation: devices group by it."""
    badge: int | None
    sound: bool
    expires_at: float
    """Unix seconds; the provider drops it after that."""
    ttl: int
    """Seconds left until then."""
    sender_id: str = ""

    def words(self, body: str) -> dict[str, str]:
        """Return what a template's placeholders stand for, with `body` for its body."""
        return {**self.data, "sender_id": self.sender_id, "title": self.title, "body": body}


def build_push(notification: Notification, now: float, app: App = DEFAULT) -> Push:
    """Return the push of a row at `now` (Unix seconds), with as much of its words as the app shows."""
    title, body = notification.title, notification.body
    if app.content != "full":
        title, body = (title, app.hidden) if app.content == "sender" else (app.hidden, "")
    return Push(
        title=title,
        body=body,
        data={
            "conversation_id": str(notification.conversation_id),
            "message_id": str(notification.message_id),
            "notification_id": str(notification.id),
            "conversation_uuid": notification.conversation_uuid or "",
            "message_uuid": notification.message_uuid or "",
            "type": notification.notification_type,
        },
        collapse_key=f"notification-{notification.id}",
        thread=f"conversation-{notification.conversation_id}",
        badge=notification.badge,
        sound=notification.sound,
        expires_at=notification.expires_at,
        ttl=min(LIFETIME_SECONDS, max(0, int(notification.expires_at - now))),
        sender_id=str(notification.sender_id),
    )


def fit_push(push: Push, encode: Callable[[Push, str], bytes], limit: int = MOST_BYTES) -> bytes:
    """Return what `encode` makes of the push and a body, with the body cut to fit and, where none would, the title too."""
    encoded = fit(push.body, lambda body: encode(push, body), limit)
    if len(encoded) <= limit:
        return encoded
    return fit(push.title, lambda title: encode(push._replace(title=title), ""), limit)


def fit(text: str, encode: Callable[[str], bytes], limit: int = MOST_BYTES) -> bytes:
    """Return what `encode` makes of the text, cut at the end with an ellipsis where that is needed to be at most `limit` bytes.

    The cut never falls inside a grapheme cluster (an emoji with its modifiers, a family, a flag) unless that is longer than any
    that people write, as a run of flags may be. What does not fit even when empty is left empty: the provider's refusal then
    names the limit.
    """
    encoded = encode(text)
    if len(encoded) <= limit:
        return encoded
    # A character is at least a byte: what lies beyond the limit cannot fit and need not be looked at.
    kept = bisect_right(range(1, min(len(text), limit) + 1), limit, key=lambda end: len(encode(text[:end] + ELLIPSIS)))
    # Clusters are looked for near the cut alone: in a run of flags each costs a look back to where the run begins.
    near = max(0, kept - LONGEST_CLUSTER)
    ends = [near + match.end() for match in _GRAPHEME.finditer(text[near : kept + LONGEST_CLUSTER])]
    kept = max((end for end in ends if end <= kept), default=0 if min(ends, default=0) <= LONGEST_CLUSTER else kept)
    return encode(text[:kept] + ELLIPSIS if kept else "")
