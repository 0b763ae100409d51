"""Push providers: where one ever took a message, how often it failed in a row, and whom it asked to wait."""

from alembic import op
from sqlalchemy import inspect

revision = "0008"
down_revision = "0007"

COLUMNS = """
ALTER TABLE worker_providers
  ADD COLUMN accepted VARCHAR(64) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'the environments in which it took a message',
  ADD COLUMN failed_in_a_row INT NOT NULL DEFAULT 0 COMMENT 'messages since its last answer',
  ADD COLUMN witnesses VARCHAR(64) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'devices asked to wait in this window'
"""


def upgrade() -> None:
    """Add the columns where they are not yet: one statement, so a migration cut short is simply run again."""
    if "accepted" not in {column["name"] for column in inspect(op.get_bind()).get_columns("worker_providers")}:
        op.execute(COLUMNS)
