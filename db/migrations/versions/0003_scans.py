"""Virus scans: leases, verdicts and retries of attachments, the story of blocked ones, releases and the sweep's walks."""

from alembic import op

revision = "0003"
down_revision = "0002"

# No foreign keys to the shared tables: the API deletes its rows freely, and an insert here must not lock them.
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
EVENTS = """
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


def upgrade() -> None:
    """Create the tables; harmless for those that are there, so that a migration cut short is simply run again."""
    for table in (SCANS, EVENTS, RELEASES, WALKS):
        op.execute(table)
