"""The shared schema: its tables as models, and which of them a dump holds. They are the API's, and never altered."""

from db.models.tables import SHARED

__all__ = ["CHAT_TABLES", "DUMPED_TABLES", "SHARED"]

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
