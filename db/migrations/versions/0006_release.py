"""Push apps, operators' pauses and audit, the outbox of events, and side tables that know of which row of an id they are."""

from alembic import op
from sqlalchemy import inspect

revision = "0006"
down_revision = "0005"

PAUSES = """
CREATE TABLE IF NOT EXISTS worker_pauses (
  what VARCHAR(48) CHARACTER SET ascii NOT NULL PRIMARY KEY
    COMMENT 'pushes, empty: all, else provider, .app or provider.app; attachments: scans; beat:, retention:',
  paused_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) COMMENT 'UTC',
  paused_by VARCHAR(100) NOT NULL,
  paused_until DATETIME(3) NULL COMMENT 'UTC; NULL: until it is resumed',
  why VARCHAR(255) NOT NULL DEFAULT ''
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: what stands still now, by order of an operator'
"""
# A pause that an operator ordered before this version: workers of that version obey the row where it stood.
PAUSED = """
INSERT IGNORE INTO worker_pauses (what, paused_at, paused_by)
SELECT CONCAT('retention:', name), paused_at, COALESCE(paused_by, '') FROM worker_retention_policies WHERE paused_at IS NOT NULL
"""
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
# One row a policy, so that an operator finds them in the admin interface.
POLICIES = """
INSERT IGNORE INTO worker_retention_policies (name) VALUES
  ('unread_notifications'), ('failed_notifications'), ('bounced_notifications'), ('dead_devices'), ('audit'), ('quarantine'),
  ('archives'), ('events')
"""
EVENTS = """
CREATE TABLE IF NOT EXISTS worker_events (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  happened_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) COMMENT 'UTC',
  type VARCHAR(32) CHARACTER SET ascii NOT NULL COMMENT 'as device.dead',
  data JSON NOT NULL,
  number BIGINT NULL COMMENT 'given after the commit: who reads on behind one misses none',
  due_at DATETIME(3) NULL DEFAULT CURRENT_TIMESTAMP(3) COMMENT 'UTC, the next try; NULL: EVENTS_URL has taken it',
  attempts SMALLINT NOT NULL DEFAULT 0,
  reason VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'why the last try failed',
  UNIQUE INDEX idx_number (number),
  INDEX idx_due (due_at, happened_at),
  INDEX idx_happened_at (happened_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='chat-workers: what happened, for those who are called or read'
"""
# Workers of the version before go on beside these: what they write has the app `default` and no identity, which is any row's.
APP = """ADD COLUMN app VARCHAR(24) CHARACTER SET ascii NOT NULL DEFAULT 'default'
  COMMENT 'as PUSH_APPS_FILE names it' AFTER provider"""
IDENTITY = "ADD COLUMN {} VARCHAR(64) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT '{}'"
OF_NOTIFICATION = IDENTITY.format("identity", "recipient, message, time of its notification")
OF_ATTACHMENT = IDENTITY.format("of_row", "message, uploader, time of its attachment")
# The table, a column that is there once it was changed, the change. Providers get an id because Directus leaves out tables
# whose key has two columns.
CHANGES = (
    (
        "worker_providers",
        "app",
        f"""{APP}, DROP PRIMARY KEY, ADD COLUMN id INT NOT NULL AUTO_INCREMENT PRIMARY KEY FIRST,
  ADD UNIQUE INDEX idx_provider (provider, app),
  ADD COLUMN accepted VARCHAR(64) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'the environments in which it took a message',
  ADD COLUMN failed_in_a_row INT NOT NULL DEFAULT 0 COMMENT 'messages since its last answer',
  ADD COLUMN witnesses VARCHAR(64) CHARACTER SET ascii NOT NULL DEFAULT '' COMMENT 'how many 429s, and of whom',
  ADD COLUMN announced BOOLEAN NOT NULL DEFAULT FALSE COMMENT 'an event says that it is open'""",
    ),
    (
        "worker_dead_devices",
        "app",
        f"""{APP}, MODIFY device_key VARCHAR(64) CHARACTER SET ascii NOT NULL
  COMMENT 'provider[.app], a colon, hash of the token'""",
    ),
    ("worker_delivery_counts", "app", f"{APP}, DROP PRIMARY KEY, ADD PRIMARY KEY (minute, provider, app, outcome, reason)"),
    (
        "worker_deliveries",
        "identity",
        f"""{OF_NOTIFICATION}, MODIFY waiting_on VARCHAR(48) CHARACTER SET ascii NOT NULL DEFAULT ''
  COMMENT 'the provider[.app] whose breaker holds all its devices'""",
    ),
    ("worker_delivery_history", "identity", OF_NOTIFICATION),
    (
        "worker_backup_runs",
        "newest_row_at",
        """ADD COLUMN restore_milliseconds BIGINT NOT NULL DEFAULT 0 COMMENT 'of a drill: until the rows were there',
  ADD COLUMN newest_row_at DATETIME(3) NULL COMMENT 'UTC; of a drill: the newest message or notification that came back'""",
    ),
    ("worker_scans", "of_row", OF_ATTACHMENT),
    ("worker_scan_events", "of_row", OF_ATTACHMENT),
)


def upgrade() -> None:
    """Change what is not yet changed: each table by one statement, so a migration cut short is simply run again."""
    op.execute(PAUSES)
    op.execute(PAUSED)
    op.execute(AUDIT)
    op.execute(EVENTS)
    op.execute(POLICIES)
    for table, column, change in CHANGES:
        if column not in {found["name"] for found in inspect(op.get_bind()).get_columns(table)}:
            op.execute(f"ALTER TABLE {table} {change}")
