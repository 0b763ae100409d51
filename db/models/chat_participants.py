"""chat_participants: who is in a conversation, what they have read, and whether they muted, blocked or left it."""

from typing import Literal

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, ApiEnum, Base, Counter, CreatedAt, FlagOff, Id, Timestamp

ParticipantRole = Literal["INITIATOR", "RECEIVER", "ADMIN"]
ParticipantStatus = Literal["ACTIVE", "INACTIVE", "ARCHIVED", "BLOCKED"]


class ChatParticipant(Base):
    """One user in one conversation."""

    __tablename__ = "chat_participants"

    id: Mapped[Id]
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", name="fk_conv_part"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_user_part"))
    role: Mapped[ParticipantRole | None] = mapped_column(ApiEnum(ParticipantRole), server_default="RECEIVER")
    unread_count: Mapped[Counter | None]
    is_muted: Mapped[FlagOff | None]
    muted_until: Mapped[Timestamp | None]
    is_blocked: Mapped[FlagOff | None]
    blocked_at: Mapped[Timestamp | None]
    last_read_message_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id", name="fk_last_read_msg"))
    last_read_at: Mapped[Timestamp | None]
    joined_at: Mapped[CreatedAt | None]
    left_at: Mapped[Timestamp | None]
    status: Mapped[ParticipantStatus | None] = mapped_column(ApiEnum(ParticipantStatus), server_default="ACTIVE")

    __table_args__ = (
        Index("idx_conversation_part", "conversation_id"),
        Index("idx_user_part", "user_id"),
        Index("idx_conv_user", "conversation_id", "user_id", unique=True),
        TABLE_OPTIONS,
    )
