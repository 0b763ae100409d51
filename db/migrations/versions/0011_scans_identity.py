"""Ids come back (a restore, TRUNCATE): what is kept beside an attachment carries of which row of that id it is."""

from alembic import op
from sqlalchemy import inspect

revision = "0011"
down_revision = "0010"

# Empty in entries from before, and of workers of the version before, which go on beside these: such an entry is any row's.
COLUMN = "of_row VARCHAR(64) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'message, uploader, time of its attachment'"


def upgrade() -> None:
    """Add the column where it is not yet, so that a migration cut short is simply run again."""
    for table in ("worker_scans", "worker_scan_events"):
        if "of_row" not in {column["name"] for column in inspect(op.get_bind()).get_columns(table)}:
            op.execute(f"ALTER TABLE {table} ADD COLUMN {COLUMN}")
