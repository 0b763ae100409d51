"""The columns and indexes of the shared schema that the workers use, and none besides: what `db check` asks for."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import JSON, TIMESTAMP, Boolean, Enum, Integer, String
from sqlalchemy.types import TypeEngine

from db.models import SHARED

# Where the migrations of the worker-owned tables keep their revision.
VERSION_TABLE = "worker_alembic_version"
Family = Literal["MariaDB", "MySQL"]
OLDEST_SERVERS: dict[Family, tuple[int, int]] = {"MariaDB": (10, 6), "MySQL": (8, 0)}

WHOLE_NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint")
TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")
TIME = "a time"
# By the model's type. The API may use any of these in place of the reference's: BIGINT ids, VARCHAR for ENUM, DATETIME for
# TIMESTAMP, and JSON is LONGTEXT on MariaDB. BIT is no flag: drivers return it as bytes, and b"\x00" is true.
KINDS: tuple[tuple[type[TypeEngine[Any]], str, tuple[str, ...]], ...] = (
    (Integer, "a whole number", WHOLE_NUMBERS),
    (Boolean, "a flag", WHOLE_NUMBERS),
    (TIMESTAMP, TIME, ("timestamp", "datetime")),
    (Enum, "one of a few words", ("enum", *TEXTS)),
    (JSON, "JSON", ("json", *TEXTS)),
    (String, "text", TEXTS),
)


@dataclass(frozen=True)
class ColumnNeed:
    """The needed shape of one column. `words` are those that they write or decide by; `room` is in characters."""

    kind: str
    types: tuple[str, ...]
    words: tuple[str, ...] = ()
    room: int = 0
    emoji: bool = False
    null: bool = False


@dataclass(frozen=True)
class IndexNeed:
    """Columns that some index must lead with, in any order, and what goes wrong without it. `unique`: they are to be a key."""

    table: str
    columns: tuple[str, ...]
    without: str
    unique: bool = False


def family_of(version: str) -> Family:
    """Return whose a server or client is, by its version text."""
    return "MariaDB" if "MariaDB" in version else "MySQL"


def _need(table: str, column: str) -> ColumnNeed:
    model = SHARED.tables[table].c[column].type
    kind, types = next((kind, types) for each, kind, types in KINDS if isinstance(model, each))
    more: dict[str, Any] = {"words": tuple(model.enums)} if isinstance(model, Enum) else {}
    more |= MORE.get(f"{table}.{column}", {})
    return ColumnNeed(kind, types, **({"room": max(map(len, more.get("words", ())), default=0)} | more))


# Besides the model's kind; of an ENUM all its words are needed unless some are named here.
MORE: dict[str, dict[str, Any]] = {
    "chat_notifications.title": {"emoji": True},
    "chat_notifications.body": {"emoji": True},
    "chat_notifications.error_message": {"room": 2000, "emoji": True, "null": True},
    "chat_participants.status": {"words": ("BLOCKED",)},
    "message_reads.status": {"words": ("READ",)},
    "message_attachments.file_name": {"emoji": True},
    "conversations.closed_reason": {"words": ("INACTIVE_30_DAYS", "BLOCKED_USER")},
}
USED = {
    "chat_notifications": "id conversation_id message_id recipient_id sender_id notification_type title body is_sent is_read"
    " sent_at read_at created_at device_tokens delivery_status error_message",
    "messages": "id conversation_id message_id is_deleted",
    "chat_participants": "id conversation_id user_id unread_count last_read_message_id is_muted is_blocked muted_until"
    " joined_at left_at status",
    "conversation_settings": "id conversation_id user_id notifications_enabled desktop_notifications mobile_notifications"
    " sound_enabled notification_type",
    "message_reads": "id message_id reader_id status",
    "message_attachments": "id message_id uploaded_by_id file_size file_name file_url file_type file_extension"
    " scanned_for_virus is_safe created_at",
    "typing_indicators": "id started_at expires_at",
    "conversations": "id conversation_id is_active is_closed closed_reason closed_at last_message_at created_at updated_at",
}
COLUMNS = {table: {column: _need(table, column) for column in columns.split()} for table, columns in USED.items()}

INDEXES = (
    *(IndexNeed(table, ("id",), "every write of the workers would lock the whole table") for table in COLUMNS),
    IndexNeed("chat_notifications", ("delivery_status",), "every claim would read the whole table"),
    IndexNeed("chat_participants", ("conversation_id", "user_id"), "every push would search for its recipient's mutes", True),
    IndexNeed("conversation_settings", ("conversation_id", "user_id"), "every push would search for its preferences", True),
    IndexNeed("message_reads", ("message_id", "reader_id"), "every push would search for whether it was already read", True),
    IndexNeed("typing_indicators", ("expires_at",), "the minute job would lock the rows of those who type"),
)

# Retention deletes from these in bounded batches; a key that cascades would make a batch unbounded.
DELETED_FROM = ("chat_notifications", "typing_indicators")
