"""chat_notifications: the queue of pushes that the API writes and the notification workers drain."""

from typing import Any, Literal

from sqlalchemy import JSON, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, ApiEnum, Base, CreatedAt, FlagOff, Id, Timestamp

NotificationType = Literal["MESSAGE", "MENTION", "SYSTEM"]
DeliveryStatus = Literal["PENDING", "SENT", "FAILED", "BOUNCED"]


class ChatNotification(Base):
    """One push to one recipient, to all of the recipient's devices."""

    __tablename__ = "chat_notifications"

    id: Mapped[Id]
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", name="fk_conv_notif"))
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id", name="fk_msg_notif"))
    recipient_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_recipient"))
    sender_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_sender_notif"))
    notification_type: Mapped[NotificationType | None] = mapped_column(ApiEnum(NotificationType), server_default="MESSAGE")
    title: Mapped[str] = mapped_column(String(100))
    body: Mapped[str] = mapped_column(Text)
    is_sent: Mapped[FlagOff | None]
    is_read: Mapped[FlagOff | None]
    sent_at: Mapped[Timestamp | None]
    read_at: Mapped[Timestamp | None]
    device_tokens: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    delivery_status: Mapped[DeliveryStatus | None] = mapped_column(ApiEnum(DeliveryStatus), server_default="PENDING")
    error_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt | None]

    __table_args__ = (
        Index("idx_recipient", "recipient_id"),
        Index("idx_conversation_notif", "conversation_id"),
        Index("idx_is_read", "is_read"),
        Index("idx_delivery_status", "delivery_status"),
        Index("idx_user_notifications", "recipient_id", "is_read", text("created_at DESC")),
        TABLE_OPTIONS,
    )
