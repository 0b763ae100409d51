"""conversations: the chat rooms, each between two users."""

from typing import Literal

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import (
    TABLE_OPTIONS,
    ApiEnum,
    Base,
    Counter,
    CreatedAt,
    FlagOff,
    FlagOn,
    Id,
    Timestamp,
    UpdatedAt,
    Uuid,
)

ConversationType = Literal["SHIPMENT", "GENERAL", "SUPPORT"]
ClosedReason = Literal["SHIPMENT_COMPLETED", "MANUAL_CLOSE", "BLOCKED_USER", "INACTIVE_30_DAYS"]


class Conversation(Base):
    """A chat room of an initiator and a receiver."""

    __tablename__ = "conversations"

    id: Mapped[Id]
    conversation_id: Mapped[Uuid]
    shipment_id: Mapped[int | None] = mapped_column(ForeignKey("shipments.id", name="fk_shipment"))
    bid_id: Mapped[int | None] = mapped_column(ForeignKey("bids.id", name="fk_bid"))
    initiator_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_initiator"))
    receiver_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_receiver"))
    conversation_type: Mapped[ConversationType | None] = mapped_column(ApiEnum(ConversationType), server_default="GENERAL")
    is_active: Mapped[FlagOn | None]
    total_message_count: Mapped[Counter | None]
    # messages refers back to conversations, so this key can only be added when both tables exist.
    last_message_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id", name="fk_last_message", use_alter=True))
    last_message_at: Mapped[Timestamp | None]
    initiator_archived: Mapped[FlagOff | None]
    receiver_archived: Mapped[FlagOff | None]
    is_closed: Mapped[FlagOff | None]
    closed_reason: Mapped[ClosedReason | None] = mapped_column(ApiEnum(ClosedReason))
    closed_at: Mapped[Timestamp | None]
    created_at: Mapped[CreatedAt | None]
    updated_at: Mapped[UpdatedAt | None]

    __table_args__ = (
        Index("idx_initiator", "initiator_id"),
        Index("idx_receiver", "receiver_id"),
        Index("idx_last_message_at", text("last_message_at DESC")),
        Index("idx_participants", "initiator_id", "receiver_id", unique=True),
        # The reference's is partial (WHERE is_active = true AND is_closed = false), which MySQL cannot parse.
        Index("idx_user_conversations", "initiator_id", "is_active", "is_closed", "receiver_id"),
        TABLE_OPTIONS,
    )
