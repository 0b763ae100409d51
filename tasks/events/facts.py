"""Events that wait for EVENTS_URL: how many, for how long, and why the last was not taken."""

from sqlalchemy import Connection, text

from settings import get_settings
from tasks.facts import Alert, Column, Fact, Row, Table, rows

MOST = 100_000

# By idx_due (due_at, happened_at) alone; those that were taken have no due_at. The reason is that of the longest wait.
WAITING = text(f"""
    SELECT COUNT(*) AS events_waiting,
           COALESCE(GREATEST(TIMESTAMPDIFF(SECOND, MIN(happened_at), NOW(3)), 0), 0) AS events_oldest_waiting_age_seconds,
           COALESCE((SELECT reason FROM worker_events FORCE INDEX (idx_due)
                     WHERE due_at > '2000-01-01' ORDER BY due_at DESC LIMIT 1), '') AS reason
    FROM (SELECT happened_at FROM worker_events FORCE INDEX (idx_due)
          WHERE due_at > '2000-01-01' ORDER BY due_at LIMIT {MOST}) AS waiting
""")  # noqa: S608 - a number of ours


def _waiting(connection: Connection) -> list[Row]:
    return rows(connection, WAITING) if get_settings().events_url else []


TABLES = (
    Table("events", "Events", (), _waiting, (
        Fact("events_waiting", "Events that EVENTS_URL has not taken yet.", "waiting", most=MOST),
        Fact("events_oldest_waiting_age_seconds", "Age of the oldest event that EVENTS_URL has not taken yet.", "oldest",
             Alert("ChatWorkersEventsWaiting", "warning",
                   "Events have waited for EVENTS_URL for {value}", "; {events_waiting} waiting: {reason}", above=900)),
        Column("why", lambda row: row["reason"] or "-"),
    ), empty="nobody is called: EVENTS_URL is not set"),
)  # fmt: skip
