"""Which tables a backup holds, and which of the API's others their rows refer to."""

from db.models import Base

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

PARENT_TABLES = tuple(sorted(set(Base.metadata.tables) - set(CHAT_TABLES)))
"""users, shipments, bids: needed by the rows, and not in the backup."""
