"""The tables of 0.1.0: push delivery, retention, virus scans and backups. Of a release, so never edited."""

from alembic import op

revision = "0005"
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
RETENTION_RUNS = """
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
SCANS = """
CREATE TABLE IF NOT EXISTS worker_scans (
  attachment_id BIGINT NOT NULL PRIMARY KEY COMMENT 'message_attachments.id',
  lane TINYINT UNSIGNED NOT NULL DEFAULT 0 COMMENT '0 uploads and retries, 1 old rows and re-scans: claimed when 0 is empty',
  lease CHAR(32) CHARACTER SET ascii NULL COMMENT 'the run that works on it now',
  due_at DATETIME(3) NULL COMMENT 'UTC; when a worker may claim it: end of the lease or next try; NULL: nothing to do',
  claims SMALLINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'claims since the last settled result; more than one: a worker died',
  attempts SMALLINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'tries in a row that ended without a verdict',
  forced BOOLEAN NOT NULL DEFAULT FALSE COMMENT 'scan the bytes even if they are known',
  verdict VARCHAR(16) CHARACTER SET ascii NOT NULL DEFAULT 'waiting'
    COMMENT 'waiting, clean, infected, unscannable, unverified or released',
  reason VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'why it is not clean, or why the last try ended without a verdict',
  signature VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'what clamd found',
  engine VARCHAR(32) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'ClamAV''s version',
  database_version INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'version of the signatures; 0: clamd does not tell',
  file_url VARCHAR(500) NOT NULL DEFAULT '' COMMENT 'the file that the verdict is about',
  sha256 CHAR(64) CHARACTER SET ascii NULL COMMENT 'of the bytes that the verdict is about',
  size BIGINT UNSIGNED NULL COMMENT 'of those bytes',
  identity VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'what the storage called that content: ETag, or inode and times',
  found_type VARCHAR(100) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'MIME type; in earlier versions'' records',
  mismatch VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'declared and found type differ; in earlier versions'' records',
  quarantine VARCHAR(500) NOT NULL DEFAULT '' COMMENT 'pending, failed, missing, or where the copy lies',
  scanned_at DATETIME(3) NULL COMMENT 'UTC; when these bytes got this verdict',
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  INDEX idx_due (lane, due_at),
  INDEX idx_sha256 (sha256),
  INDEX idx_verdict (verdict, attachment_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: what clamd said about message_attachments, and what is due'
"""
SCAN_EVENTS = """
CREATE TABLE IF NOT EXISTS worker_scan_events (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY COMMENT 'the API reads on from the last one it has seen',
  attachment_id BIGINT NOT NULL,
  happened_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  event VARCHAR(16) CHARACTER SET ascii NOT NULL COMMENT 'the new verdict, or quarantined',
  reason VARCHAR(255) NOT NULL DEFAULT '',
  signature VARCHAR(255) NOT NULL DEFAULT '',
  sha256 CHAR(64) CHARACTER SET ascii NULL,
  INDEX idx_attachment (attachment_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: every verdict but a first clean one, in order'
"""
RELEASES = """
CREATE TABLE IF NOT EXISTS worker_scan_releases (
  sha256 CHAR(64) CHARACTER SET ascii NOT NULL PRIMARY KEY COMMENT 'bytes that a person has taken the responsibility for',
  released_by VARCHAR(100) NOT NULL,
  reason VARCHAR(255) NOT NULL,
  released_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: content that is served whatever clamd says'
"""
WALKS = """
CREATE TABLE IF NOT EXISTS worker_scan_walks (
  walk VARCHAR(16) CHARACTER SET ascii NOT NULL PRIMARY KEY COMMENT 'patrol or renewal',
  position BIGINT NOT NULL COMMENT 'the attachment id that the walk has come to',
  database_version INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'renewal: the signatures it re-scans for',
  moved_at DATETIME(3) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: how far the sweep has walked through message_attachments'
"""
BACKUP_RUNS = """
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
# One row a policy, so that an operator finds them in the admin interface.
ROWS = """
INSERT IGNORE INTO worker_retention_policies (name) VALUES
  ('read_notifications'), ('closed_conversations'), ('idle_conversations'), ('typing_indicators'),
  ('delivery_history'), ('delivery_counts'), ('retention_runs'), ('scan_events'), ('orphaned_scans')
"""


def upgrade() -> None:
    """Create the tables; harmless for those that are there, so that a migration cut short is simply run again."""
    for table in (DELIVERIES, PROVIDERS, DEAD_DEVICES, HISTORY, COUNTS, POLICIES, RETENTION_RUNS, HEARTBEAT):
        op.execute(table)
    for statement in (SCANS, SCAN_EVENTS, RELEASES, WALKS, BACKUP_RUNS, ROWS):
        op.execute(statement)
