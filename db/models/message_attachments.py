"""message_attachments: the files that users sent, with the virus scan's verdict."""

from typing import Literal

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import TABLE_OPTIONS, ApiEnum, Base, Counter, CreatedAt, FlagOff, FlagOn, Id

AttachmentCategory = Literal["IMAGE", "DOCUMENT", "VIDEO", "AUDIO", "OTHER"]


class MessageAttachment(Base):
    """A file of a message. To be served only if `scanned_for_virus AND is_safe`: `is_safe` alone is true by default."""

    __tablename__ = "message_attachments"

    id: Mapped[Id]
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id", name="fk_msg_attach"))
    file_name: Mapped[str] = mapped_column(String(255))
    file_url: Mapped[str] = mapped_column(String(500))
    file_size: Mapped[int | None]
    file_type: Mapped[str | None] = mapped_column(String(50))
    file_extension: Mapped[str | None] = mapped_column(String(10))
    thumbnail_url: Mapped[str | None] = mapped_column(String(500))
    category: Mapped[AttachmentCategory | None] = mapped_column(ApiEnum(AttachmentCategory))
    uploaded_by_id: Mapped[int] = mapped_column(ForeignKey("users.id", name="fk_uploader"))
    scanned_for_virus: Mapped[FlagOff | None]
    is_safe: Mapped[FlagOn | None]
    download_count: Mapped[Counter | None]
    created_at: Mapped[CreatedAt | None]

    __table_args__ = (
        Index("idx_message_attach", "message_id"),
        Index("idx_uploader", "uploaded_by_id"),
        TABLE_OPTIONS,
    )
