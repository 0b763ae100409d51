"""Retention: what operators set, the ledger of runs, and the heartbeat that replicas are measured by."""

from alembic import op

revision = "0002"
down_revision = "0001"

POLICIES = """
CREATE TABLE IF NOT EXISTS worker_retention_policies (
  name VARCHAR(40) CHARACTER SET ascii NOT NULL PRIMARY KEY,
  enabled BOOLEAN NULL COMMENT 'NULL, here and below: as in the settings',
  age VARCHAR(16) CHARACTER SET ascii NULL COMMENT 'rows older than this: a number and s, m, h or d, as in 90d',
  hours VARCHAR(8) CHARACTER SET ascii NULL COMMENT 'UTC, as in 1-5 or 22-4; or any',
  rows_per_run INT NULL,
  minutes_per_run INT NULL,
  batch_rows INT NULL COMMENT 'the most rows of one transaction',
  archive BOOLEAN NULL COMMENT 'rows go into a file before they are deleted',
  paused_at DATETIME(3) NULL COMMENT 'UTC; set: no run starts, and one under way ends between two batches',
  paused_by VARCHAR(100) NULL,
  updated_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: retention policies; edit here, the next batch obeys'
"""
RUNS = """
CREATE TABLE IF NOT EXISTS worker_retention_runs (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  policy VARCHAR(40) CHARACTER SET ascii NOT NULL,
  started_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  started_by VARCHAR(100) NOT NULL,
  touched_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) COMMENT 'the latest batch',
  ended_at DATETIME(3) NULL,
  ended_because VARCHAR(255) NULL COMMENT 'finished, the bound or order that ended it, failed: why, or died',
  rows_done BIGINT NOT NULL DEFAULT 0 COMMENT 'counted in the transactions of the batches',
  batches INT NOT NULL DEFAULT 0,
  held_seconds DOUBLE NOT NULL DEFAULT 0 COMMENT 'how long it held back for threads or replicas',
  rule CHAR(16) CHARACTER SET ascii NOT NULL COMMENT 'hash of what it does; a walk is continued by the same rule only',
  cutoff DATETIME NOT NULL COMMENT 'UTC; rows older than this',
  after_key VARCHAR(32) CHARACTER SET ascii NULL COMMENT 'all keys up to this one are done',
  until_key VARCHAR(32) CHARACTER SET ascii NULL COMMENT 'the last key of the walk',
  INDEX idx_policy (policy, id),
  INDEX idx_started_at (started_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: the ledger of retention runs'
"""
HEARTBEAT = """
CREATE TABLE IF NOT EXISTS worker_heartbeat (
  id TINYINT NOT NULL PRIMARY KEY,
  at DATETIME(3) NOT NULL COMMENT 'UTC; written while batch jobs watch replicas'
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: how far behind replicas are'
"""
# One row a policy, so that an operator finds them in the admin interface.
ROWS = """
INSERT IGNORE INTO worker_retention_policies (name) VALUES
  ('read_notifications'), ('closed_conversations'), ('idle_conversations'), ('typing_indicators'),
  ('delivery_history'), ('delivery_counts'), ('retention_runs')
"""


def upgrade() -> None:
    """Create the tables; harmless for those that are there, so that a migration cut short is simply run again."""
    for statement in (POLICIES, RUNS, HEARTBEAT, ROWS):
        op.execute(statement)
