"""The shared schema as models, one table a module; importing this package registers them all on `Base.metadata`."""

from db.models.base import Base
from db.models.chat_notifications import ChatNotification
from db.models.chat_participants import ChatParticipant
from db.models.conversation_settings import ConversationSetting
from db.models.conversations import Conversation
from db.models.marketplace import Bid, Shipment, User
from db.models.message_attachments import MessageAttachment
from db.models.message_reactions import MessageReaction
from db.models.message_reads import MessageRead
from db.models.messages import Message
from db.models.typing_indicators import TypingIndicator

__all__ = [
    "CHAT_TABLES",
    "DUMPED_TABLES",
    "Base",
    "Bid",
    "ChatNotification",
    "ChatParticipant",
    "Conversation",
    "ConversationSetting",
    "Message",
    "MessageAttachment",
    "MessageReaction",
    "MessageRead",
    "Shipment",
    "TypingIndicator",
    "User",
]

# In the reference's order. Foreign keys point both ways between the first two, so no order satisfies them all; a dump is
# loaded with the checks off.
CHAT_TABLES = (
    "conversations",
    "messages",
    "message_reads",
    "message_attachments",
    "message_reactions",
    "chat_participants",
    "typing_indicators",
    "conversation_settings",
    "chat_notifications",
)
# What a dump holds: without the verdicts on its attachments a restored chat would not know one of them.
DUMPED_TABLES = (*CHAT_TABLES, "worker_scans", "worker_scan_releases")
