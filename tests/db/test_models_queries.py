"""Every example query of the shared schema reference runs against the models' schema and finds what it should."""

import re
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import CursorResult

from db.create import create_shared_schema

# The reference's SQL, word for word, each under its table and heading there.
QUERIES: dict[str, str] = dict(
    re.findall(r"^-- (.+)\n([^;]+);", Path(__file__).with_name("reference_queries.sql").read_text(), re.MULTILINE)
)

# Ann (1) and Bob (2) share conversation 1; Cyd (3) has closed conversation 2 with Ann long ago.
CHAT = """
INSERT INTO users (id, first_name, last_name) VALUES (1, 'Ann', 'A'), (2, 'Bob', 'B'), (3, 'Cyd', 'C');
INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id, last_message_at)
  VALUES (1, 'one', 1, 2, NOW());
INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id, is_closed, closed_reason, closed_at)
  VALUES (2, 'two', 3, 1, true, 'INACTIVE_30_DAYS', NOW() - INTERVAL 400 DAY);
INSERT INTO messages (id, message_id, conversation_id, sender_id, message_text)
  VALUES (1, 'a', 1, 1, 'When can you deliver? 🚚'), (2, 'b', 1, 2, 'Tomorrow.'), (3, 'c', 1, 2, 'At noon.');
UPDATE messages SET is_deleted = true, deleted_reason = 'USER_REQUEST' WHERE id = 3;
UPDATE messages SET edit_count = 1, edited_at = NOW(), edit_history = '["Tomorow."]' WHERE id = 2;
UPDATE conversations SET last_message_id = 2 WHERE id = 1;
INSERT INTO message_reads (message_id, conversation_id, reader_id, status) VALUES (1, 1, 2, 'READ'), (2, 1, 1, 'SENT');
INSERT INTO message_attachments (message_id, file_name, file_url, uploaded_by_id) VALUES (1, 'a.pdf', '/files/a', 1);
INSERT INTO message_reactions (message_id, user_id, reaction_emoji) VALUES (1, 2, '👍');
INSERT INTO chat_participants (conversation_id, user_id, unread_count) VALUES (1, 1, 1), (1, 2, 0);
INSERT INTO typing_indicators (conversation_id, user_id, expires_at)
  VALUES (1, 1, NOW() + INTERVAL 1 HOUR), (1, 2, NOW() - INTERVAL 5 SECOND), (1, 2, NOW() - INTERVAL 1 HOUR);
INSERT INTO conversation_settings (conversation_id, user_id, is_starred) VALUES (1, 1, true);
INSERT INTO chat_notifications (id, conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens)
  VALUES (1, 1, 1, 2, 1, 'Ann', 'When can you deliver? 🚚', '["token_abc123"]');
INSERT INTO chat_notifications
  (conversation_id, message_id, recipient_id, sender_id, title, body, delivery_status, is_read, created_at)
  VALUES (1, 2, 1, 2, 'Bob', 'Tomorrow.', 'FAILED', false, NOW()),
         (1, 2, 1, 2, 'Bob', 'Tomorrow.', 'SENT', true, NOW() - INTERVAL 100 DAY)
"""

# Heading -> what its question marks stand for, and how many rows come back or are changed.
EXPECTED: dict[str, tuple[tuple[object, ...], int]] = {
    "conversations: Get user's conversations": ((1, 1), 2),
    "conversations: Find existing conversation": ((2, 1, 1, 2), 1),
    "conversations: Get unread conversations": ((1, 1, 1), 1),
    "messages: Get conversation messages (paginated)": ((1, 0), 2),
    "messages: Get latest message in conversation": ((1,), 1),
    "messages: Search messages": ((1, "%🚚%"), 1),
    "messages: Get edited messages (audit)": ((), 1),
    "message_reads: Get unread messages for user": ((1,), 1),
    "message_reads: Get read status for message": ((1,), 1),
    "message_reads: Mark all messages as read": ((1, 1), 1),
    "message_reads: Unread count per conversation": ((1,), 1),
    "message_attachments: Get message attachments": ((1,), 1),
    "message_attachments: Get user uploads (audit)": ((1,), 1),
    "message_attachments: Get downloads report": ((), 1),
    "message_reactions: Get reactions for message": ((1,), 1),
    "message_reactions: Check if user reacted": ((1, 2), 1),
    "message_reactions: Remove reaction": ((1, 2), 1),
    "chat_participants: Get participant info": ((1, 1), 1),
    "chat_participants: Update unread count": ((1, 1), 1),
    "chat_participants: Get unread counts for user": ((1,), 1),
    "chat_participants: Mute conversation": ((1, 1), 1),
    "typing_indicators: Auto-cleanup job (run every minute)": ((), 2),
    "typing_indicators: Get active typers": ((1,), 1),
    "typing_indicators: Clean expired": ((), 2),
    "conversation_settings: Get user settings": ((1, 1), 1),
    "conversation_settings: Get starred conversations": ((1,), 1),
    "chat_notifications: Get pending notifications": ((2,), 1),
    "chat_notifications: Get unread notifications": ((1,), 1),
    "chat_notifications: Mark as read": ((1, 2), 1),
    "chat_notifications: Get failed notifications (retry)": ((), 1),
    "retention: Archive old typing indicators (TTL: 5 seconds)": ((), 1),
    "retention: Archive old notifications (90 days)": ((), 1),
    "retention: Soft-delete closed conversations (keep 1 year)": ((), 1),
}


@pytest.fixture
def chat(engine: Engine) -> Engine:
    create_shared_schema(engine)
    with engine.begin() as connection:
        for statement in CHAT.split(";"):
            connection.exec_driver_sql(statement)
    return engine


@pytest.mark.parametrize("heading", QUERIES)
def test_the_references_query_runs(heading: str, chat: Engine) -> None:
    parameters, rows = EXPECTED[heading]
    with chat.begin() as connection:
        result: CursorResult[object] = connection.exec_driver_sql(QUERIES[heading].replace("?", "%s"), parameters)
        assert (len(result.all()) if result.returns_rows else result.rowcount) == rows


def test_no_query_is_left_out() -> None:
    assert EXPECTED.keys() == QUERIES.keys()
