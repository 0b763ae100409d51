"""Backups: what was run, how it ended and how long it took."""

from alembic import op

revision = "0004"
down_revision = "0003"

RUNS = """
CREATE TABLE IF NOT EXISTS worker_backup_runs (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  job VARCHAR(16) CHARACTER SET ascii NOT NULL COMMENT 'daily, weekly, monthly or drill',
  tier VARCHAR(16) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'of a drill: where its backup came from',
  outcome VARCHAR(8) CHARACTER SET ascii NOT NULL COMMENT 'done or failed',
  artefact VARCHAR(255) NOT NULL DEFAULT '',
  bytes BIGINT NOT NULL DEFAULT 0 COMMENT 'of the artefact',
  row_count BIGINT NOT NULL DEFAULT 0 COMMENT 'rows dumped, or proved by a drill',
  milliseconds BIGINT NOT NULL,
  ended_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) COMMENT 'UTC',
  detail VARCHAR(1000) NOT NULL DEFAULT '' COMMENT 'why it failed',
  INDEX idx_ended_at (ended_at),
  INDEX idx_job (job, tier, outcome, ended_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: backups and drills; alert on the age of the last one done'
"""


def upgrade() -> None:
    """Create the table; harmless if it is there, so that a migration cut short is simply run again."""
    op.execute(RUNS)
