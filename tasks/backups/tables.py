"""Which tables a backup holds, and which of the API's others their rows refer to."""

from db.models import CHAT_TABLES, Base

PARENT_TABLES = tuple(sorted(set(Base.metadata.tables) - set(CHAT_TABLES)))
"""users, shipments, bids: needed by the rows, and not in the backup."""
