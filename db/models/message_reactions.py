"""message_reactions: the emoji that users put on messages."""

from typing import Literal

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, ApiEnum, Base, CreatedAt, Id

ReactionType = Literal["LIKE", "LOVE", "LAUGH", "SAD", "ANGRY", "WOW", "CUSTOM"]


class MessageReaction(Base):
    """One user's reaction to one message."""

    __tablename__ = "message_reactions"

    id: Mapped[Id]
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id", name="fk_msg_react"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_reacting_user"))
    reaction_emoji: Mapped[str] = mapped_column(String(10))
    reaction_type: Mapped[ReactionType | None] = mapped_column(ApiEnum(ReactionType))
    created_at: Mapped[CreatedAt | None]

    __table_args__ = (
        Index("idx_message_react", "message_id"),
        Index("idx_user_react", "user_id"),
        Index("idx_user_reaction", "message_id", "user_id", unique=True),
        TABLE_OPTIONS,
    )
