"""The columns and indexes of the shared schema that the workers use, and none besides: what `db check` asks for."""

from dataclasses import dataclass
from typing import get_args

from db.models.chat_notifications import DeliveryStatus, NotificationType
from db.models.conversation_settings import NotificationPreference

OLDEST_SERVERS = {"MariaDB": (10, 6), "MySQL": (8, 0)}

WHOLE_NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")
# The API may use any of these in place of the reference's type: BIGINT ids, VARCHAR for ENUM, DATETIME for TIMESTAMP,
# and JSON is LONGTEXT on MariaDB. BIT is no flag: drivers return it as bytes, and b"\x00" is true.
TYPES: dict[str, tuple[str, ...]] = {
    "a whole number": WHOLE_NUMBERS,
    "a flag": WHOLE_NUMBERS,
    "a time": ("timestamp", "datetime"),
    "text": TEXTS,
    "one of a few words": ("enum", *TEXTS),
    "JSON": ("json", *TEXTS),
}


@dataclass(frozen=True)
class ColumnNeed:
    """The needed shape of one column. `words` are those that they write or decide by; `room` is in characters."""

    kind: str
    words: tuple[str, ...] = ()
    room: int = 0
    emoji: bool = False
    null: bool = False


@dataclass(frozen=True)
class IndexNeed:
    """Columns that some index must lead with, in any order, and what goes wrong without it."""

    table: str
    columns: tuple[str, ...]
    without: str


NUMBER, FLAG, TIME, TEXT, JSON = (ColumnNeed(kind) for kind in ("a whole number", "a flag", "a time", "text", "JSON"))


def _words(*words: str) -> ColumnNeed:
    return ColumnNeed("one of a few words", words=words, room=max(map(len, words)))


COLUMNS: dict[str, dict[str, ColumnNeed]] = {
    "chat_notifications": {
        "id": NUMBER,
        "conversation_id": NUMBER,
        "message_id": NUMBER,
        "recipient_id": NUMBER,
        "sender_id": NUMBER,
        "notification_type": _words(*get_args(NotificationType)),
        "title": ColumnNeed("text", emoji=True),
        "body": ColumnNeed("text", emoji=True),
        "is_sent": FLAG,
        "is_read": FLAG,
        "sent_at": TIME,
        "read_at": TIME,
        "device_tokens": JSON,
        "delivery_status": _words(*get_args(DeliveryStatus)),
        "error_message": ColumnNeed("text", room=2000, emoji=True, null=True),
        "created_at": TIME,
    },
    "messages": {"id": NUMBER, "conversation_id": NUMBER, "is_deleted": FLAG},
    "chat_participants": {
        "id": NUMBER,
        "conversation_id": NUMBER,
        "user_id": NUMBER,
        "unread_count": NUMBER,
        "is_muted": FLAG,
        "muted_until": TIME,
        "is_blocked": FLAG,
        "last_read_message_id": NUMBER,
        "left_at": TIME,
        "status": _words("BLOCKED"),
    },
    "conversation_settings": {
        "id": NUMBER,
        "conversation_id": NUMBER,
        "user_id": NUMBER,
        "notifications_enabled": FLAG,
        "notification_type": _words(*get_args(NotificationPreference)),
        "desktop_notifications": FLAG,
        "mobile_notifications": FLAG,
        "sound_enabled": FLAG,
    },
    "message_reads": {"id": NUMBER, "message_id": NUMBER, "reader_id": NUMBER, "status": _words("READ")},
    "message_attachments": {
        "id": NUMBER,
        "file_name": ColumnNeed("text", emoji=True),
        "file_url": TEXT,
        "file_size": NUMBER,
        "file_type": TEXT,
        "file_extension": TEXT,
        "scanned_for_virus": FLAG,
        "is_safe": FLAG,
        "created_at": TIME,
    },
    "typing_indicators": {"id": NUMBER, "expires_at": TIME},
    "conversations": {
        "id": NUMBER,
        "is_active": FLAG,
        "is_closed": FLAG,
        "closed_at": TIME,
        "closed_reason": _words("INACTIVE_30_DAYS"),
        "last_message_at": TIME,
        "created_at": TIME,
        "updated_at": TIME,
    },
}

INDEXES = (
    *(IndexNeed(table, ("id",), "every write of the workers would lock the whole table") for table in COLUMNS),
    IndexNeed("chat_notifications", ("delivery_status",), "every claim would read the whole table"),
    IndexNeed("chat_participants", ("conversation_id", "user_id"), "every push would search for its recipient's mutes"),
    IndexNeed("conversation_settings", ("conversation_id", "user_id"), "every push would search for its preferences"),
    IndexNeed("message_reads", ("message_id", "reader_id"), "every push would search for whether it was already read"),
    IndexNeed("typing_indicators", ("expires_at",), "the minute job would lock the rows of those who type"),
)

# Retention deletes from these in bounded batches; a key that cascades would make a batch unbounded.
DELETED_FROM = ("chat_notifications", "typing_indicators")
