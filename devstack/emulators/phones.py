"""Android phones that are offline: what FCM keeps for each, and what a phone shows when it is back.

https://firebase.google.com/docs/cloud-messaging/customize-messages/collapsible-message-types: a message with a `notification`
part is always collapsible, under the app's package name whatever its collapse_key. Of messages with a key the last of each key
is kept, for four keys at most, and which four is not said. Of those without a key a hundred are kept; with one more all of them
are discarded, and the app is told.
"""

from typing import Any

MOST_KEYS = 4
MOST_MESSAGES = 100
PACKAGE = "the app's package name"


class Phone:
    """One device's storage at FCM while it is offline."""

    def __init__(self) -> None:
        self._collapsible: dict[str, dict[str, Any]] = {}
        self._others: list[dict[str, Any]] = []

    def keep(self, message: dict[str, Any]) -> None:
        """Store a message for the phone. With a fifth key the one that came first goes: any four will do."""
        android = message.get("android") or {}
        key = PACKAGE if "notification" in message or "notification" in android else android.get("collapse_key")
        if key is None:
            self._others.append(message)
            if len(self._others) > MOST_MESSAGES:
                self._others.clear()
            return
        self._collapsible.pop(key, None)
        self._collapsible[key] = message
        if len(self._collapsible) > MOST_KEYS:
            del self._collapsible[next(iter(self._collapsible))]

    def shown(self) -> list[dict[str, Any]]:
        """Return what it shows when it is back: the last of each tag, none withdrawn, as docs/apps.md has an app do."""
        by_tag: dict[str, dict[str, Any]] = {}
        for message in (*self._collapsible.values(), *self._others):
            if withdrawn := (message.get("data") or {}).get("withdrawn"):
                for notification_id in withdrawn.split():
                    by_tag.pop(f"notification-{notification_id}", None)
                continue
            android = message.get("android") or {}
            shown = {**(message.get("notification") or {}), **(android.get("notification") or android.get("data") or {})}
            by_tag[shown.get("tag", "")] = shown
        return list(by_tag.values())
