"""How push delivery stands: rows by status, what waits and why, outcomes of the last hour, the providers' health.

Every count is bounded, so that asking costs the same on a table of five million rows.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, text

from db.rows import dicts

# Entries and PENDING rows are work and counted far; the others grow with the table for ever.
MOST_COUNTED = 100_000
MOST_BY_STATUS = {"PENDING": MOST_COUNTED, "FAILED": 1000, "SENT": 1000, "BOUNCED": 1000}

# By the index on delivery_status alone.
COUNT_STATUS = text("""
    SELECT COUNT(*) FROM (SELECT 1 FROM chat_notifications WHERE delivery_status = :status LIMIT :most) AS counted
""")
OLDEST_PENDING = text("""
    SELECT TIMESTAMPDIFF(SECOND, created_at, NOW()) AS age FROM chat_notifications IGNORE INDEX (PRIMARY)
    WHERE delivery_status = 'PENDING' ORDER BY id LIMIT 1
""")
WAITING = text("""
    SELECT IF(lease IS NULL, waiting_on, 'worker') AS waiting_on, reason, COUNT(*) AS notifications,
           SUM(due_at <= NOW(3)) AS due, TIMESTAMPDIFF(SECOND, MIN(created_at), NOW()) AS oldest_age
    FROM (SELECT * FROM worker_deliveries LIMIT :most) AS entries GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 50
""")
OUTCOMES = text("""
    SELECT provider, outcome, reason, SUM(devices) AS devices FROM worker_delivery_counts
    WHERE minute >= NOW() - INTERVAL 1 HOUR GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC LIMIT 100
""")
# Rows that were not simply sent, by idx_settled_at.
ENDED = text("""
    SELECT status, reason, COUNT(*) AS notifications FROM worker_delivery_history
    WHERE settled_at >= NOW(3) - INTERVAL 1 HOUR GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 50
""")
PROVIDERS = text("""
    SELECT provider, opened_at IS NOT NULL AS open, reason, opened_at, probe_at,
           IF(paused_until > NOW(3), paused_until, NULL) AS paused_until
    FROM worker_providers ORDER BY provider
""")


@dataclass(frozen=True, slots=True)
class Status:
    """How push delivery stands. Ages in seconds; a count of MOST_BY_STATUS means that many or more."""

    notifications: dict[str, int]
    oldest_pending_age: int | None
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """Rows with an entry: leased by a worker, waiting for a provider, or for their next attempt, by reason."""
    last_hour: list[dict[str, Any]] = field(default_factory=list)
    """Devices by provider, outcome and reason."""
    ended_last_hour: list[dict[str, Any]] = field(default_factory=list)
    """Rows that ended otherwise than simply sent, by status and reason."""
    providers: list[dict[str, Any]] = field(default_factory=list)


def status(engine: Engine) -> Status:
    """Return how delivery stands now."""
    with engine.connect() as connection:
        return Status(
            {
                word: connection.execute(COUNT_STATUS, {"status": word, "most": most}).scalar_one()
                for word, most in MOST_BY_STATUS.items()
            },
            connection.execute(OLDEST_PENDING).scalar_one_or_none(),
            dicts(connection, WAITING, most=MOST_COUNTED),
            dicts(connection, OUTCOMES),
            dicts(connection, ENDED),
            dicts(connection, PROVIDERS),
        )
