"""The columns and indexes of the shared schema that the workers use, and none besides: what `db check` asks for."""

from dataclasses import dataclass
from typing import cast

from sqlalchemy import Enum

from db.models import SHARED

# Where the migrations of the worker-owned tables keep their revision.
VERSION_TABLE = "worker_alembic_version"
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


def _all_words(table: str, column: str) -> ColumnNeed:
    return _words(*cast(Enum, SHARED.tables[table].c[column].type).enums)


def _of(kind: ColumnNeed, *names: str) -> dict[str, ColumnNeed]:
    return dict.fromkeys(names, kind)


COLUMNS: dict[str, dict[str, ColumnNeed]] = {
    "chat_notifications": {
        **_of(NUMBER, "id", "conversation_id", "message_id", "recipient_id", "sender_id"),
        "notification_type": _all_words("chat_notifications", "notification_type"),
        **_of(ColumnNeed("text", emoji=True), "title", "body"),
        **_of(FLAG, "is_sent", "is_read"),
        **_of(TIME, "sent_at", "read_at", "created_at"),
        "device_tokens": JSON,
        "delivery_status": _all_words("chat_notifications", "delivery_status"),
        "error_message": ColumnNeed("text", room=2000, emoji=True, null=True),
    },
    "messages": {**_of(NUMBER, "id", "conversation_id"), "message_id": TEXT, "is_deleted": FLAG},
    "chat_participants": {
        **_of(NUMBER, "id", "conversation_id", "user_id", "unread_count", "last_read_message_id"),
        **_of(FLAG, "is_muted", "is_blocked"),
        **_of(TIME, "muted_until", "joined_at", "left_at"),
        "status": _words("BLOCKED"),
    },
    "conversation_settings": {
        **_of(NUMBER, "id", "conversation_id", "user_id"),
        **_of(FLAG, "notifications_enabled", "desktop_notifications", "mobile_notifications", "sound_enabled"),
        "notification_type": _all_words("conversation_settings", "notification_type"),
    },
    "message_reads": {**_of(NUMBER, "id", "message_id", "reader_id"), "status": _words("READ")},
    "message_attachments": {
        **_of(NUMBER, "id", "message_id", "uploaded_by_id", "file_size"),
        "file_name": ColumnNeed("text", emoji=True),
        **_of(TEXT, "file_url", "file_type", "file_extension"),
        **_of(FLAG, "scanned_for_virus", "is_safe"),
        "created_at": TIME,
    },
    "typing_indicators": {"id": NUMBER, **_of(TIME, "started_at", "expires_at")},
    "conversations": {
        "id": NUMBER,
        "conversation_id": TEXT,
        **_of(FLAG, "is_active", "is_closed"),
        "closed_reason": _words("INACTIVE_30_DAYS", "BLOCKED_USER"),
        **_of(TIME, "closed_at", "last_message_at", "created_at", "updated_at"),
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
