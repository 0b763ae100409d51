"""Retention: a row for each policy that came later, so that an operator finds them in the admin interface."""

from alembic import op

revision = "0005"
down_revision = "0004"

ROWS = """
INSERT IGNORE INTO worker_retention_policies (name) VALUES ('scan_events'), ('orphaned_scans')
"""


def upgrade() -> None:
    """Add the rows; harmless for those that are there."""
    op.execute(ROWS)
