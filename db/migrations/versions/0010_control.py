"""Control in an incident: the audit of operators' commands; pauses of other things than deliveries."""

from alembic import op
from sqlalchemy import inspect

revision = "0010"
down_revision = "0009"

AUDIT = """
CREATE TABLE IF NOT EXISTS worker_audit (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  began_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) COMMENT 'UTC',
  who VARCHAR(100) NOT NULL COMMENT 'login name and host',
  what VARCHAR(64) CHARACTER SET ascii NOT NULL COMMENT 'the command',
  arguments JSON NOT NULL COMMENT 'as given, without secrets',
  outcome VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'what it came to; empty: it runs, or was killed',
  INDEX idx_began_at (began_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: each command of an operator that changed something'
"""


def upgrade() -> None:
    """Create the table, and rename what an unreleased 0006 made; harmless where that is done."""
    op.execute(AUDIT)
    if "worker_delivery_pauses" in inspect(op.get_bind()).get_table_names():
        op.execute("ALTER TABLE worker_delivery_pauses CHANGE provider what VARCHAR(48) CHARACTER SET ascii NOT NULL")
        op.execute("RENAME TABLE worker_delivery_pauses TO worker_pauses")
