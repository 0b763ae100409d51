-- conversations: Get user's conversations
SELECT * FROM conversations
WHERE (initiator_id = ? OR receiver_id = ?)
  AND is_active = true
ORDER BY last_message_at DESC
LIMIT 50;

-- conversations: Find existing conversation
SELECT * FROM conversations
WHERE (initiator_id = ? AND receiver_id = ?)
   OR (initiator_id = ? AND receiver_id = ?)
LIMIT 1;

-- conversations: Get unread conversations
SELECT c.*, COUNT(mr.id) as unread_count
FROM conversations c
LEFT JOIN message_reads mr ON c.id = mr.conversation_id
  AND mr.reader_id = ?
  AND mr.status != 'READ'
WHERE (c.initiator_id = ? OR c.receiver_id = ?)
GROUP BY c.id
HAVING unread_count > 0;

-- messages: Get conversation messages (paginated)
SELECT m.*, u.first_name, u.last_name, u.avatar_url
FROM messages m
JOIN users u ON m.sender_id = u.id
WHERE m.conversation_id = ? AND m.is_deleted = false
ORDER BY m.created_at DESC
LIMIT 30 OFFSET ?;

-- messages: Get latest message in conversation
SELECT * FROM messages
WHERE conversation_id = ? AND is_deleted = false
ORDER BY created_at DESC
LIMIT 1;

-- messages: Search messages
SELECT * FROM messages
WHERE conversation_id = ?
  AND message_text LIKE ?
  AND is_deleted = false
ORDER BY created_at DESC;

-- messages: Get edited messages (audit)
SELECT * FROM messages
WHERE edit_count > 0
ORDER BY edited_at DESC;

-- message_reads: Get unread messages for user
SELECT COUNT(*) as unread_count
FROM message_reads
WHERE reader_id = ? AND status != 'READ';

-- message_reads: Get read status for message
SELECT reader_id, status, read_at
FROM message_reads
WHERE message_id = ?
ORDER BY read_at DESC;

-- message_reads: Mark all messages as read
UPDATE message_reads
SET status = 'READ', read_at = NOW()
WHERE conversation_id = ? AND reader_id = ? AND status != 'READ';

-- message_reads: Unread count per conversation
SELECT conversation_id, COUNT(*) as unread_count
FROM message_reads
WHERE reader_id = ? AND status != 'READ'
GROUP BY conversation_id;

-- message_attachments: Get message attachments
SELECT * FROM message_attachments
WHERE message_id = ?
ORDER BY created_at DESC;

-- message_attachments: Get user uploads (audit)
SELECT * FROM message_attachments
WHERE uploaded_by_id = ?
ORDER BY created_at DESC;

-- message_attachments: Get downloads report
SELECT file_name, download_count
FROM message_attachments
WHERE created_at >= DATE_SUB(NOW(), INTERVAL 30 DAY)
ORDER BY download_count DESC;

-- message_reactions: Get reactions for message
SELECT reaction_emoji, COUNT(*) as count,
       GROUP_CONCAT(DISTINCT user_id) as users
FROM message_reactions
WHERE message_id = ?
GROUP BY reaction_emoji;

-- message_reactions: Check if user reacted
SELECT * FROM message_reactions
WHERE message_id = ? AND user_id = ?;

-- message_reactions: Remove reaction
DELETE FROM message_reactions
WHERE message_id = ? AND user_id = ?;

-- chat_participants: Get participant info
SELECT * FROM chat_participants
WHERE conversation_id = ? AND user_id = ?;

-- chat_participants: Update unread count
UPDATE chat_participants
SET unread_count = 0, last_read_at = NOW()
WHERE conversation_id = ? AND user_id = ?;

-- chat_participants: Get unread counts for user
SELECT conversation_id, unread_count
FROM chat_participants
WHERE user_id = ? AND unread_count > 0;

-- chat_participants: Mute conversation
UPDATE chat_participants
SET is_muted = true, muted_until = DATE_ADD(NOW(), INTERVAL 8 HOUR)
WHERE conversation_id = ? AND user_id = ?;

-- typing_indicators: Auto-cleanup job (run every minute)
DELETE FROM typing_indicators WHERE expires_at < NOW();

-- typing_indicators: Get active typers
SELECT u.id, u.first_name, u.last_name
FROM typing_indicators t
JOIN users u ON t.user_id = u.id
WHERE t.conversation_id = ? AND t.expires_at > NOW();

-- typing_indicators: Clean expired
DELETE FROM typing_indicators WHERE expires_at < NOW();

-- conversation_settings: Get user settings
SELECT * FROM conversation_settings
WHERE conversation_id = ? AND user_id = ?;

-- conversation_settings: Get starred conversations
SELECT conversation_id FROM conversation_settings
WHERE user_id = ? AND is_starred = true;

-- chat_notifications: Get pending notifications
SELECT * FROM chat_notifications
WHERE recipient_id = ?
  AND delivery_status = 'PENDING'
ORDER BY created_at DESC
LIMIT 50;

-- chat_notifications: Get unread notifications
SELECT COUNT(*) as unread_count
FROM chat_notifications
WHERE recipient_id = ? AND is_read = false;

-- chat_notifications: Mark as read
UPDATE chat_notifications
SET is_read = true, read_at = NOW()
WHERE id = ? AND recipient_id = ?;

-- chat_notifications: Get failed notifications (retry)
SELECT * FROM chat_notifications
WHERE delivery_status = 'FAILED'
  AND created_at > DATE_SUB(NOW(), INTERVAL 24 HOUR)
LIMIT 100;

-- retention: Archive old typing indicators (TTL: 5 seconds)
DELETE FROM typing_indicators
WHERE expires_at < NOW() - INTERVAL 10 SECOND;

-- retention: Archive old notifications (90 days)
DELETE FROM chat_notifications
WHERE created_at < NOW() - INTERVAL 90 DAY
  AND is_read = true;

-- retention: Soft-delete closed conversations (keep 1 year)
UPDATE conversations
SET is_active = false
WHERE closed_at < NOW() - INTERVAL 365 DAY;
