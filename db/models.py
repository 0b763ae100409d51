"""The tables of the shared schema as the reference has them, and where it cannot be taken literally, why; which a dump holds.

They are the API's, and never altered. The reference leaves every flag and time that it gives a default NULL-able. Times are
naive and in UTC, as long as the session's time zone is UTC (db/engine.py).
"""

from typing import Any

from sqlalchemy import JSON, Boolean, Column, Enum, ForeignKey, Index, Integer, MetaData, String, Table, Text, text
from sqlalchemy.dialects.mysql import TIMESTAMP
from sqlalchemy.schema import SchemaItem

SHARED = MetaData()

NEEDED: dict[str, Any] = {"nullable": False}
ZERO: dict[str, Any] = {"server_default": text("0")}
OFF: dict[str, Any] = {"server_default": text("false")}
ON: dict[str, Any] = {"server_default": text("true")}
NOW: dict[str, Any] = {"server_default": text("CURRENT_TIMESTAMP")}
UPDATED: dict[str, Any] = {"server_default": text("CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP")}


def _table(name: str, says: str, *items: SchemaItem) -> Table:
    own = Column("id", Integer, primary_key=True, autoincrement=True)
    return Table(name, SHARED, own, *items, info={"says": says}, mysql_engine="InnoDB", mysql_charset="utf8mb4")


def _ref(name: str, table: str, key: str, *, nullable: bool = False, use_alter: bool = False) -> "Column[int]":
    return Column(name, Integer, ForeignKey(f"{table}.id", name=key, use_alter=use_alter), nullable=nullable)


_table("users", "Someone who chats; of this table and the next two no more than the chat's keys and queries name.",
    Column("first_name", String(100)),
    Column("last_name", String(100)),
    Column("avatar_url", String(500)),
)  # fmt: skip
_table("shipments", "What a conversation of type SHIPMENT is about.", Column("created_at", TIMESTAMP, **NOW))
_table("bids", "An offer to carry a shipment.",
    _ref("shipment_id", "shipments", "fk_bid_shipment", nullable=True),
    Column("created_at", TIMESTAMP, **NOW),
)  # fmt: skip

_table("conversations", "A chat room of an initiator and a receiver.",
    Column("conversation_id", String(36), unique=True, **NEEDED),
    _ref("shipment_id", "shipments", "fk_shipment", nullable=True),
    _ref("bid_id", "bids", "fk_bid", nullable=True),
    _ref("initiator_id", "users", "fk_initiator"),
    _ref("receiver_id", "users", "fk_receiver"),
    Column("conversation_type", Enum("SHIPMENT", "GENERAL", "SUPPORT"), server_default="GENERAL"),
    Column("is_active", Boolean, **ON),
    Column("total_message_count", Integer, **ZERO),
    # messages refers back to conversations, so this key can only be added when both tables exist.
    _ref("last_message_id", "messages", "fk_last_message", nullable=True, use_alter=True),
    Column("last_message_at", TIMESTAMP),
    Column("initiator_archived", Boolean, **OFF),
    Column("receiver_archived", Boolean, **OFF),
    Column("is_closed", Boolean, **OFF),
    Column("closed_reason", Enum("SHIPMENT_COMPLETED", "MANUAL_CLOSE", "BLOCKED_USER", "INACTIVE_30_DAYS")),
    Column("closed_at", TIMESTAMP),
    Column("created_at", TIMESTAMP, **NOW),
    Column("updated_at", TIMESTAMP, **UPDATED),
    Index("idx_initiator", "initiator_id"),
    Index("idx_receiver", "receiver_id"),
    Index("idx_last_message_at", text("last_message_at DESC")),
    Index("idx_participants", "initiator_id", "receiver_id", unique=True),
    # The reference's is partial (WHERE is_active = true AND is_closed = false), which MySQL cannot parse.
    Index("idx_user_conversations", "initiator_id", "is_active", "is_closed", "receiver_id"),
)  # fmt: skip
_table("messages", "One message of a conversation; a deleted one stays, marked.",
    Column("message_id", String(36), unique=True, **NEEDED),
    _ref("conversation_id", "conversations", "fk_conversation"),
    _ref("sender_id", "users", "fk_sender"),
    Column("message_text", Text),
    Column("message_type", Enum("TEXT", "IMAGE", "FILE", "LOCATION", "SYSTEM"), server_default="TEXT"),
    Column("system_message_type", Enum(
        "USER_JOINED", "USER_LEFT", "CONVERSATION_CREATED", "SHIPMENT_ACCEPTED", "DELIVERY_COMPLETED",
    )),
    Column("edited_at", TIMESTAMP),
    Column("edit_count", Integer, **ZERO),
    Column("edit_history", JSON),
    Column("is_deleted", Boolean, **OFF),
    Column("deleted_reason", Enum("USER_REQUEST", "MODERATION", "ABUSE", "SPAM")),
    _ref("deleted_by_id", "users", "fk_deleted_by", nullable=True),
    Column("deleted_at", TIMESTAMP),
    Column("reaction_count", Integer, **ZERO),
    Column("has_attachments", Boolean, **OFF),
    Column("attachment_count", Integer, **ZERO),
    Column("metadata", JSON),
    Column("created_at", TIMESTAMP, **NOW),
    Column("updated_at", TIMESTAMP, **UPDATED),
    Index("idx_conversation", "conversation_id"),
    Index("idx_sender", "sender_id"),
    Index("idx_created_at", text("created_at DESC")),
    Index("idx_is_deleted", "is_deleted"),
    # UNIQUE in the reference, which refuses two messages of one conversation in the same second.
    Index("idx_msg_conversation_time", "conversation_id", text("created_at DESC")),
    # The reference's is partial (WHERE is_deleted = false), which MySQL cannot parse.
    Index("idx_message_pagination", "conversation_id", "is_deleted", text("created_at DESC")),
)  # fmt: skip
_table("message_reads", "How far one message has got with one of its readers.",
    _ref("message_id", "messages", "fk_msg"),
    _ref("conversation_id", "conversations", "fk_conv"),
    _ref("reader_id", "users", "fk_reader"),
    Column("status", Enum("SENT", "DELIVERED", "READ"), server_default="SENT"),
    Column("delivered_at", TIMESTAMP),
    Column("read_at", TIMESTAMP),
    Column("created_at", TIMESTAMP, **NOW),
    Index("idx_message", "message_id"),
    Index("idx_reader", "reader_id"),
    Index("idx_conversation", "conversation_id"),
    Index("idx_msg_reader", "message_id", "reader_id", unique=True),
    Index("idx_unread_messages", "conversation_id", "reader_id", "status"),
)  # fmt: skip
_table("message_attachments",
    "A file of a message. To be served only if `scanned_for_virus AND is_safe`: `is_safe` alone is true by default.",
    _ref("message_id", "messages", "fk_msg_attach"),
    Column("file_name", String(255), **NEEDED),
    Column("file_url", String(500), **NEEDED),
    Column("file_size", Integer),
    Column("file_type", String(50)),
    Column("file_extension", String(10)),
    Column("thumbnail_url", String(500)),
    Column("category", Enum("IMAGE", "DOCUMENT", "VIDEO", "AUDIO", "OTHER")),
    _ref("uploaded_by_id", "users", "fk_uploader"),
    Column("scanned_for_virus", Boolean, **OFF),
    Column("is_safe", Boolean, **ON),
    Column("download_count", Integer, **ZERO),
    Column("created_at", TIMESTAMP, **NOW),
    Index("idx_message_attach", "message_id"),
    Index("idx_uploader", "uploaded_by_id"),
)  # fmt: skip
_table("message_reactions", "One user's reaction to one message.",
    _ref("message_id", "messages", "fk_msg_react"),
    _ref("user_id", "users", "fk_reacting_user"),
    Column("reaction_emoji", String(10), **NEEDED),
    Column("reaction_type", Enum("LIKE", "LOVE", "LAUGH", "SAD", "ANGRY", "WOW", "CUSTOM")),
    Column("created_at", TIMESTAMP, **NOW),
    Index("idx_message_react", "message_id"),
    Index("idx_user_react", "user_id"),
    Index("idx_user_reaction", "message_id", "user_id", unique=True),
)  # fmt: skip
_table("chat_participants", "One user in one conversation: what they have read, and whether they muted, blocked or left it.",
    _ref("conversation_id", "conversations", "fk_conv_part"),
    _ref("user_id", "users", "fk_user_part"),
    Column("role", Enum("INITIATOR", "RECEIVER", "ADMIN"), server_default="RECEIVER"),
    Column("unread_count", Integer, **ZERO),
    Column("is_muted", Boolean, **OFF),
    Column("muted_until", TIMESTAMP),
    Column("is_blocked", Boolean, **OFF),
    Column("blocked_at", TIMESTAMP),
    _ref("last_read_message_id", "messages", "fk_last_read_msg", nullable=True),
    Column("last_read_at", TIMESTAMP),
    Column("joined_at", TIMESTAMP, **NOW),
    Column("left_at", TIMESTAMP),
    Column("status", Enum("ACTIVE", "INACTIVE", "ARCHIVED", "BLOCKED"), server_default="ACTIVE"),
    Index("idx_conversation_part", "conversation_id"),
    Index("idx_user_part", "user_id"),
    Index("idx_conv_user", "conversation_id", "user_id", unique=True),
)  # fmt: skip
_table("typing_indicators", "One user typing in one conversation until `expires_at`; a row is worth five seconds.",
    _ref("conversation_id", "conversations", "fk_conv_typing"),
    _ref("user_id", "users", "fk_user_typing"),
    Column("started_at", TIMESTAMP, **NOW),
    Column("expires_at", TIMESTAMP, **NEEDED),
    Index("idx_conversation_typing", "conversation_id"),
    Index("idx_expires_at", "expires_at"),
    Index("idx_active_typers", "conversation_id", text("expires_at DESC")),
)  # fmt: skip
_table("conversation_settings", "One user's settings for one conversation.",
    _ref("conversation_id", "conversations", "fk_conv_settings"),
    _ref("user_id", "users", "fk_user_settings"),
    Column("color_tag", Enum("RED", "ORANGE", "YELLOW", "GREEN", "BLUE", "PURPLE")),
    Column("is_starred", Boolean, **OFF),
    Column("notifications_enabled", Boolean, **ON),
    Column("notification_type", Enum("ALL", "MENTIONS_ONLY", "NONE"), server_default="ALL"),
    Column("desktop_notifications", Boolean, **ON),
    Column("mobile_notifications", Boolean, **ON),
    Column("sound_enabled", Boolean, **ON),
    Column("show_read_receipts", Boolean, **ON),
    Column("custom_label", String(100)),
    Column("created_at", TIMESTAMP, **NOW),
    Column("updated_at", TIMESTAMP, **UPDATED),
    Index("idx_conversation_settings", "conversation_id"),
    Index("idx_user_settings", "user_id"),
    Index("idx_conv_user_settings", "conversation_id", "user_id", unique=True),
)  # fmt: skip
_table("chat_notifications", "One push to one recipient, to all of the recipient's devices: the queue that the workers drain.",
    _ref("conversation_id", "conversations", "fk_conv_notif"),
    _ref("message_id", "messages", "fk_msg_notif"),
    _ref("recipient_id", "users", "fk_recipient"),
    _ref("sender_id", "users", "fk_sender_notif"),
    Column("notification_type", Enum("MESSAGE", "MENTION", "SYSTEM"), server_default="MESSAGE"),
    Column("title", String(100), **NEEDED),
    Column("body", Text, **NEEDED),
    Column("is_sent", Boolean, **OFF),
    Column("is_read", Boolean, **OFF),
    Column("sent_at", TIMESTAMP),
    Column("read_at", TIMESTAMP),
    Column("device_tokens", JSON),
    Column("delivery_status", Enum("PENDING", "SENT", "FAILED", "BOUNCED"), server_default="PENDING"),
    Column("error_message", Text),
    Column("created_at", TIMESTAMP, **NOW),
    Index("idx_recipient", "recipient_id"),
    Index("idx_conversation_notif", "conversation_id"),
    Index("idx_is_read", "is_read"),
    Index("idx_delivery_status", "delivery_status"),
    Index("idx_user_notifications", "recipient_id", "is_read", text("created_at DESC")),
)  # fmt: skip

# In the reference's order, which is this file's, behind users, shipments and bids. Foreign keys point both ways between the
# first two, so no order satisfies them all; a dump is loaded with the checks off.
CHAT_TABLES = tuple(SHARED.tables)[3:]
# What a dump holds: without the verdicts on its attachments a restored chat would not know one of them.
DUMPED_TABLES = (*CHAT_TABLES, "worker_scans", "worker_scan_releases")
