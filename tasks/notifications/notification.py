"""One claimed row of `chat_notifications`, with what delivery needs to know about it."""

from typing import Literal, NamedTuple

NotificationType = Literal["MESSAGE", "MENTION", "SYSTEM"]
LIFETIME_SECONDS = 24 * 3600
# Of a row `n`. Ids come back (a restore, TRUNCATE): what is kept beside a row carries this; nothing, if 0.1.0 wrote it.
# To the second, whatever the column's precision, which the API may raise.
IDENTITY = "CONCAT_WS(' ', n.recipient_id, n.message_id, LEFT(n.created_at, 19))"
ENTRIES = f"""
    worker_deliveries d FORCE INDEX (PRIMARY) STRAIGHT_JOIN chat_notifications n FORCE INDEX (PRIMARY)
    ON n.id = d.notification_id AND d.identity IN ('', {IDENTITY})
"""


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
    """When it was written, or else first seen."""
    conversation_uuid: str | None = None
    message_uuid: str | None = None
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
    by_hand: bool = False
    """PENDING, and not because its result could not be written: whatever waits in its ledger is tried now."""

    @property
    def expires_at(self) -> float:
        """When trying ends: nothing is sent later than this."""
        return self.created_at + LIFETIME_SECONDS
