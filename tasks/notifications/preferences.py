"""The recipient's preferences, looked up at send time: the first rule that holds suppresses the push."""

from sqlalchemy import Connection, text

# Each join is by a primary or unique key: (conversation_id, user_id), (message_id, reader_id).
JOINS = """
    LEFT JOIN conversations c ON c.id = n.conversation_id
    LEFT JOIN messages m ON m.id = n.message_id
    LEFT JOIN message_reads r ON r.message_id = n.message_id AND r.reader_id = n.recipient_id
    LEFT JOIN chat_participants p ON p.conversation_id = n.conversation_id AND p.user_id = n.recipient_id
    LEFT JOIN conversation_settings s ON s.conversation_id = n.conversation_id AND s.user_id = n.recipient_id
"""

# The order is the precedence; docs/notifications.md explains each rule. A recipient without a participant or settings row
# has set nothing: the push goes out.
COLUMNS = """
    CASE
      WHEN c.id IS NULL THEN 'the conversation is gone'
      WHEN m.id IS NULL THEN 'the message is gone'
      WHEN m.is_deleted THEN 'the message was deleted'
      WHEN n.is_read OR r.status = 'READ' OR p.last_read_message_id >= n.message_id THEN 'already read'
      WHEN p.is_blocked OR p.status = 'BLOCKED' THEN 'blocked'
      WHEN p.left_at IS NOT NULL THEN 'the recipient left the conversation'
      WHEN s.notifications_enabled = 0 OR s.notification_type = 'NONE' THEN 'notifications are off'
      WHEN p.is_muted AND (p.muted_until IS NULL OR p.muted_until > NOW()) THEN 'muted'
      WHEN s.notification_type = 'MENTIONS_ONLY' AND n.notification_type <> 'MENTION' THEN 'mentions only'
    END AS suppressed,
    COALESCE(s.mobile_notifications, 1) AS mobile,
    COALESCE(s.desktop_notifications, 1) AS desktop,
    COALESCE(s.sound_enabled, 1) AS sound
"""

# By the index on user_id; a person is in some hundreds of conversations at most.
BADGES = text("""
    SELECT user_id, SUM(unread_count) AS unread FROM chat_participants
    WHERE user_id IN :users AND unread_count > 0 AND left_at IS NULL GROUP BY user_id
""")


def badges(connection: Connection, users: set[int]) -> dict[int, int]:
    """Return for each user the number of unread messages over all conversations; users with none are left out."""
    if not users:
        return {}
    return {row.user_id: int(row.unread) for row in connection.execute(BADGES, {"users": sorted(users)})}
