"""Ids come back (a restore, TRUNCATE): what is kept beside a notification carries of which row of that id it is."""

from alembic import op
from sqlalchemy import inspect

revision = "0009"
down_revision = "0008"

# Empty in entries from before, and of workers of the version before, which go on beside these: such an entry is any row's.
COLUMN = "identity VARCHAR(64) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'recipient, message, time of its notification'"


def upgrade() -> None:
    """Add the column where it is not yet, so that a migration cut short is simply run again."""
    for table in ("worker_deliveries", "worker_delivery_history"):
        if "identity" not in {column["name"] for column in inspect(op.get_bind()).get_columns(table)}:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {COLUMN}")
