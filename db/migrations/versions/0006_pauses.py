"""The pauses of operators, which every worker obeys within a second."""

from alembic import op

revision = "0006"
down_revision = "0005"

PAUSES = """
CREATE TABLE IF NOT EXISTS worker_pauses (
  what VARCHAR(48) CHARACTER SET ascii NOT NULL PRIMARY KEY
    COMMENT 'pushes, empty: all, else provider, .app or provider.app; attachments: scans',
  paused_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) COMMENT 'UTC',
  paused_by VARCHAR(100) NOT NULL,
  paused_until DATETIME(3) NULL COMMENT 'UTC; NULL: until it is resumed',
  why VARCHAR(255) NOT NULL DEFAULT ''
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: what stands still now, by order of an operator'
"""


def upgrade() -> None:
    """Create the table; harmless if it is there, so that a migration cut short is simply run again."""
    op.execute(PAUSES)
