"""The recipient's preferences, looked up at send time: the first rule that holds suppresses the push.

A rule that meets NULL does not hold. A date of zeros, as a client without strict mode leaves behind, means NULL.
"""

# Of a participant's row `p`. Who left and joined again has not left, nor has who will leave.
LEFT = "p.left_at BETWEEN '1970-01-02' AND NOW() AND NOT COALESCE(p.joined_at > p.left_at, 0)"
MUTED = "p.is_muted AND NOT COALESCE(p.muted_until BETWEEN '1970-01-02' AND NOW(), 0)"
READ = "(n.is_read OR r.status = 'READ' OR p.last_read_message_id >= n.message_id)"
BLOCKED = "({0}.is_blocked OR {0}.status = 'BLOCKED')"

# Each join is by a primary or unique key: (conversation_id, user_id), (message_id, reader_id).
JOINS = """
    LEFT JOIN conversations c ON c.id = n.conversation_id
    LEFT JOIN messages m ON m.id = n.message_id
    LEFT JOIN message_reads r ON r.message_id = n.message_id AND r.reader_id = n.recipient_id
    LEFT JOIN chat_participants p ON p.conversation_id = n.conversation_id AND p.user_id = n.recipient_id
    LEFT JOIN chat_participants sender ON sender.conversation_id = n.conversation_id AND sender.user_id = n.sender_id
    LEFT JOIN conversation_settings s ON s.conversation_id = n.conversation_id AND s.user_id = n.recipient_id
"""

# The order is the precedence; docs/notifications.md explains each rule. A recipient without a participant or settings row
# has set nothing: the push goes out.
COLUMNS = f"""
    CASE
      WHEN c.id IS NULL THEN 'the conversation is gone'
      WHEN m.id IS NULL THEN 'the message is gone'
      WHEN m.is_deleted THEN 'the message was deleted'
      WHEN {READ} THEN 'already read'
      WHEN {BLOCKED.format("p")} OR {BLOCKED.format("sender")} THEN 'blocked'
      WHEN c.is_closed AND c.closed_reason = 'BLOCKED_USER' THEN 'blocked'
      WHEN {LEFT} THEN 'the recipient left the conversation'
      WHEN s.notifications_enabled = 0 OR s.notification_type = 'NONE' THEN 'notifications are off'
      WHEN {MUTED} THEN 'muted'
      WHEN s.notification_type = 'MENTIONS_ONLY' AND NOT n.notification_type <=> 'MENTION' THEN 'mentions only'
    END,
    COALESCE(s.mobile_notifications, 1),
    COALESCE(s.desktop_notifications, 1),
    COALESCE(s.sound_enabled, 1)
"""

# The unread messages over the recipient's conversations that may ring, by the index on user_id. MariaDB looks once a recipient,
# MySQL once a row: there the first so many conversations count, or a hundred thousand of one person's would hold all pushes up.
MOST_CONVERSATIONS = 1000
BADGE = f"""
    (SELECT COALESCE(SUM(unread_count), 0) FROM /*!80014 (SELECT p.unread_count FROM */ chat_participants p
     WHERE p.user_id = n.recipient_id AND p.unread_count > 0
     AND NOT COALESCE({LEFT} OR {MUTED} OR {BLOCKED.format("p")}, 0) /*!80014 LIMIT {MOST_CONVERSATIONS}) AS these */)
"""  # noqa: S608 - constants of this module
