"""message_reads: how far each message has got with each of its readers."""

from typing import Literal

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, ApiEnum, Base, CreatedAt, Id, Timestamp

ReadStatus = Literal["SENT", "DELIVERED", "READ"]


class MessageRead(Base):
    """One message at one reader."""

    __tablename__ = "message_reads"

    id: Mapped[Id]
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id", name="fk_msg"))
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", name="fk_conv"))
    reader_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_reader"))
    status: Mapped[ReadStatus | None] = mapped_column(ApiEnum(ReadStatus), server_default="SENT")
    delivered_at: Mapped[Timestamp | None]
    read_at: Mapped[Timestamp | None]
    created_at: Mapped[CreatedAt | None]

    __table_args__ = (
        Index("idx_message", "message_id"),
        Index("idx_reader", "reader_id"),
        Index("idx_conversation", "conversation_id"),
        Index("idx_msg_reader", "message_id", "reader_id", unique=True),
        Index("idx_unread_messages", "conversation_id", "reader_id", "status"),
        TABLE_OPTIONS,
    )
