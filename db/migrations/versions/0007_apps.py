"""Push apps: the app beside the provider in every table that is kept by provider, `default` for all that is there."""

from alembic import op
from sqlalchemy import inspect

revision = "0007"
down_revision = "0006"

# Workers of the version before go on beside these: what they write has the app `default`.
APP = """ADD COLUMN app VARCHAR(24) CHARACTER SET ascii NOT NULL DEFAULT 'default'
  COMMENT 'as PUSH_APPS_FILE names it' AFTER provider"""
# Providers get an id because Directus leaves out tables whose key has two columns.
ADD_APP = {
    "worker_providers": f"{APP}, DROP PRIMARY KEY, ADD COLUMN id INT NOT NULL AUTO_INCREMENT PRIMARY KEY FIRST,"
    " ADD UNIQUE INDEX idx_provider (provider, app)",
    "worker_dead_devices": f"{APP}, MODIFY device_key VARCHAR(64) CHARACTER SET ascii NOT NULL"
    " COMMENT 'provider[.app], a colon, hash of the token'",
    "worker_delivery_counts": f"{APP}, DROP PRIMARY KEY, ADD PRIMARY KEY (minute, provider, app, outcome, reason)",
}
WIDEN_LANES = """ALTER TABLE worker_deliveries MODIFY waiting_on VARCHAR(48) CHARACTER SET ascii NOT NULL DEFAULT ''
  COMMENT 'the provider[.app] whose breaker holds all its devices'"""


def upgrade() -> None:
    """Add the column where it is not yet: a table's change is one statement, so a migration cut short is simply run again."""
    for table, change in ADD_APP.items():
        if "app" not in {column["name"] for column in inspect(op.get_bind()).get_columns(table)}:
            op.execute(f"ALTER TABLE {table} {change}")
    op.execute(WIDEN_LANES)
