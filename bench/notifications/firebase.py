"""firebase-admin pointed at the emulator, and the message that the peers send with it."""

import os
from typing import Any

import firebase_admin
from firebase_admin import credentials, messaging


def initialize() -> None:
    """Make the default app; once a process, so that its connections and its token are kept."""
    if not firebase_admin._apps:
        base = os.environ["FCM_BASE_URL"]
        messaging._MessagingService.FCM_URL = f"{base}/v1/projects/{{0}}/messages:send"
        firebase_admin.initialize_app(credentials.Certificate(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]))


def message(row: dict[str, Any], token: str) -> messaging.Message:
    """Return a plain message: less than the workers send, with nothing for each platform."""
    return messaging.Message(
        token=token,
        notification=messaging.Notification(title=row["title"], body=row["body"]),
        data={"notification_id": str(row["id"]), "conversation_id": str(row["conversation_id"])},
    )
