"""typing_indicators: who is typing now; a row is worth five seconds."""

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, Base, CreatedAt, Id, Timestamp


class TypingIndicator(Base):
    """One user typing in one conversation until `expires_at`."""

    __tablename__ = "typing_indicators"

    id: Mapped[Id]
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", name="fk_conv_typing"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_user_typing"))
    started_at: Mapped[CreatedAt | None]
    expires_at: Mapped[Timestamp]

    __table_args__ = (
        Index("idx_conversation_typing", "conversation_id"),
        Index("idx_expires_at", "expires_at"),
        Index("idx_active_typers", "conversation_id", text("expires_at DESC")),
        TABLE_OPTIONS,
    )
