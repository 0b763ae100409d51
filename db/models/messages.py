"""messages: what was said, with the history of its edits and its deletion."""

from typing import Any, Literal

from sqlalchemy import JSON, ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, ApiEnum, Base, Counter, CreatedAt, FlagOff, Id, Timestamp, UpdatedAt, Uuid

MessageType = Literal["TEXT", "IMAGE", "FILE", "LOCATION", "SYSTEM"]
SystemMessageType = Literal["USER_JOINED", "USER_LEFT", "CONVERSATION_CREATED", "SHIPMENT_ACCEPTED", "DELIVERY_COMPLETED"]
DeletedReason = Literal["USER_REQUEST", "MODERATION", "ABUSE", "SPAM"]


class Message(Base):
    """One message of a conversation; a deleted one stays, marked."""

    __tablename__ = "messages"

    id: Mapped[Id]
    message_id: Mapped[Uuid]
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", name="fk_conversation"))
    sender_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_sender"))
    message_text: Mapped[str | None] = mapped_column(Text)
    message_type: Mapped[MessageType | None] = mapped_column(ApiEnum(MessageType), server_default="TEXT")
    system_message_type: Mapped[SystemMessageType | None] = mapped_column(ApiEnum(SystemMessageType))
    edited_at: Mapped[Timestamp | None]
    edit_count: Mapped[Counter | None]
    edit_history: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    is_deleted: Mapped[FlagOff | None]
    deleted_reason: Mapped[DeletedReason | None] = mapped_column(ApiEnum(DeletedReason))
    deleted_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", name="fk_deleted_by"))
    deleted_at: Mapped[Timestamp | None]
    reaction_count: Mapped[Counter | None]
    has_attachments: Mapped[FlagOff | None]
    attachment_count: Mapped[Counter | None]
    # The attribute cannot be called `metadata`: declarative classes keep their tables' MetaData there.
    metadata_: Mapped[Any | None] = mapped_column("metadata", JSON(none_as_null=True))
    created_at: Mapped[CreatedAt | None]
    updated_at: Mapped[UpdatedAt | None]

    __table_args__ = (
        Index("idx_conversation", "conversation_id"),
        Index("idx_sender", "sender_id"),
        Index("idx_created_at", text("created_at DESC")),
        Index("idx_is_deleted", "is_deleted"),
        # UNIQUE in the reference, which refuses two messages of one conversation in the same second.
        Index("idx_msg_conversation_time", "conversation_id", text("created_at DESC")),
        # The reference's is partial (WHERE is_deleted = false), which MySQL cannot parse.
        Index("idx_message_pagination", "conversation_id", "is_deleted", text("created_at DESC")),
        TABLE_OPTIONS,
    )
