"""conversation_settings: how each user wants to see and be told of a conversation."""

from typing import Literal

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, ApiEnum, Base, CreatedAt, FlagOff, FlagOn, Id, UpdatedAt

ColorTag = Literal["RED", "ORANGE", "YELLOW", "GREEN", "BLUE", "PURPLE"]
NotificationPreference = Literal["ALL", "MENTIONS_ONLY", "NONE"]


class ConversationSetting(Base):
    """One user's settings for one conversation."""

    __tablename__ = "conversation_settings"

    id: Mapped[Id]
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id", name="fk_conv_settings"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_user_settings"))
    color_tag: Mapped[ColorTag | None] = mapped_column(ApiEnum(ColorTag))
    is_starred: Mapped[FlagOff | None]
    notifications_enabled: Mapped[FlagOn | None]
    notification_type: Mapped[NotificationPreference | None] = mapped_column(
        ApiEnum(NotificationPreference), server_default="ALL"
    )
    desktop_notifications: Mapped[FlagOn | None]
    mobile_notifications: Mapped[FlagOn | None]
    sound_enabled: Mapped[FlagOn | None]
    show_read_receipts: Mapped[FlagOn | None]
    custom_label: Mapped[str | None] = mapped_column(String(100))
    created_at: Mapped[CreatedAt | None]
    updated_at: Mapped[UpdatedAt | None]

    __table_args__ = (
        Index("idx_conversation_settings", "conversation_id"),
        Index("idx_user_settings", "user_id"),
        Index("idx_conv_user_settings", "conversation_id", "user_id", unique=True),
        TABLE_OPTIONS,
    )
