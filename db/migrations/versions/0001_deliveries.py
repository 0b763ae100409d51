"""Push delivery: leases and retries, the providers' shared health, dead devices, stories and counts."""

from alembic import op

revision = "0001"
down_revision = None

# No foreign keys to the shared tables: the API deletes its rows freely, and an insert here must not lock them.
DELIVERIES = """
CREATE TABLE IF NOT EXISTS worker_deliveries (
  notification_id BIGINT NOT NULL PRIMARY KEY COMMENT 'chat_notifications.id',
  lease CHAR(32) CHARACTER SET ascii NULL COMMENT 'the run that works on it now; NULL between attempts',
  due_at DATETIME(3) NOT NULL COMMENT 'UTC; when a worker may claim it: end of the lease or next attempt',
  waiting_on VARCHAR(16) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'the provider whose breaker holds all its devices',
  claims SMALLINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'claims since the last settled result; more than one: a worker died',
  devices JSON NULL COMMENT 'the per-device ledger, by device key',
  reason VARCHAR(64) NOT NULL DEFAULT '' COMMENT 'why the last attempt failed',
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  INDEX idx_due (waiting_on, due_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: leases and retries of chat_notifications'
"""
PROVIDERS = """
CREATE TABLE IF NOT EXISTS worker_providers (
  provider VARCHAR(16) CHARACTER SET ascii NOT NULL PRIMARY KEY,
  opened_at DATETIME(3) NULL COMMENT 'UTC; when the breaker opened, NULL while it is closed',
  reason VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'why it opened',
  probe_at DATETIME(3) NULL COMMENT 'when one message may be tried',
  probes INT NOT NULL DEFAULT 0 COMMENT 'probes that failed since it opened',
  recovered_at DATETIME(3) NULL COMMENT 'when it last closed: the rate climbs from here',
  window_at DATETIME(3) NULL COMMENT 'start of the window that answered and failed count in',
  answered INT NOT NULL DEFAULT 0,
  failed INT NOT NULL DEFAULT 0,
  paused_until DATETIME(3) NULL COMMENT 'the provider asked all senders to wait until then',
  tokens DOUBLE NOT NULL DEFAULT 0 COMMENT 'messages that may be sent now, by the rate',
  tokens_at DATETIME(3) NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: health of the push providers, shared by all workers'
"""
DEAD_DEVICES = """
CREATE TABLE IF NOT EXISTS worker_dead_devices (
  device_key VARCHAR(40) CHARACTER SET ascii NOT NULL PRIMARY KEY COMMENT 'provider:hash of the token',
  provider VARCHAR(16) CHARACTER SET ascii NOT NULL,
  token TEXT NOT NULL COMMENT 'what the API finds in its own device list',
  recipient_id BIGINT NOT NULL,
  notification_id BIGINT NOT NULL COMMENT 'the row that found it dead',
  reason VARCHAR(64) NOT NULL,
  died_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  INDEX idx_recipient (recipient_id),
  INDEX idx_died_at (died_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: tokens not to try; the API deletes a row to register it again'
"""
HISTORY = """
CREATE TABLE IF NOT EXISTS worker_delivery_history (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  notification_id BIGINT NOT NULL,
  settled_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  status VARCHAR(8) CHARACTER SET ascii NOT NULL,
  reason VARCHAR(64) NOT NULL DEFAULT '',
  devices JSON NULL COMMENT 'device key to [state, attempts, last reason]',
  INDEX idx_notification (notification_id),
  INDEX idx_settled_at (settled_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: how notifications ended that were not simply sent at once'
"""
COUNTS = """
CREATE TABLE IF NOT EXISTS worker_delivery_counts (
  minute DATETIME NOT NULL COMMENT 'UTC',
  provider VARCHAR(16) CHARACTER SET ascii NOT NULL,
  outcome VARCHAR(16) CHARACTER SET ascii NOT NULL,
  reason VARCHAR(64) NOT NULL,
  devices INT NOT NULL COMMENT 'messages with this outcome in this minute',
  PRIMARY KEY (minute, provider, outcome, reason)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: outcomes of pushes by the minute'
"""


def upgrade() -> None:
    """Create the tables; harmless for those that are there, so that a migration cut short is simply run again."""
    for table in (DELIVERIES, PROVIDERS, DEAD_DEVICES, HISTORY, COUNTS):
        op.execute(table)
