"""One claimed row of `chat_notifications`, with what delivery needs to know about it."""

from typing import Literal, NamedTuple

NotificationType = Literal["MESSAGE", "MENTION", "SYSTEM"]
LIFETIME_SECONDS = 24 * 3600


class Notification(NamedTuple):
    """A row as it was when it was claimed, its fields in queue.LOAD's order. Times are Unix seconds of the database's clock."""

    id: int
    conversation_id: int
    message_id: int
    recipient_id: int
    sender_id: int
    notification_type: NotificationType
    title: str
    body: str
    device_tokens: str | None
    is_sent: bool
    created_at: float
    suppressed: str | None = None
    """Why the recipient does not want it, None where it is wanted."""
    mobile: bool = True
    desktop: bool = True
    sound: bool = True
    badge: int | None = None
    claims: int = 1
    """Claims since the last settled result, this one included: more than one means that a worker died with it."""
    ledger: str | None = None
    """What is known of its devices from earlier attempts, as `ledger.Ledger` writes it."""

    @property
    def expires_at(self) -> float:
        """When trying ends: nothing is sent later than this."""
        return self.created_at + LIFETIME_SECONDS
