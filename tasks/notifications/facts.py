"""Push delivery: the backlog and its age, what waits and why, each provider's breaker, outcomes and answer times."""

from sqlalchemy import Connection, text

from db.check import stray_statuses
from tasks import pause
from tasks.facts import Alert, Column, Counter, Fact, Histogram, Row, Table, rows
from tasks.notifications.outcome import Kind
from tasks.notifications.providers import PROVIDERS
from tasks.words import duration

# Each count reads so many entries of an index at most: some 20 ms, on a table of five million rows too.
MOST = 100_000

# By the index on delivery_status alone. Without a row the age is zero: an alert on a series that comes and goes would never
# resolve.
BACKLOG = text(f"""
    SELECT 'PENDING' AS status,
           (SELECT COUNT(*) FROM (SELECT 1 FROM chat_notifications WHERE delivery_status = 'PENDING' LIMIT {MOST}) AS counted)
             AS notifications,
           COALESCE((SELECT MAX(TIMESTAMPDIFF(SECOND, created_at, NOW())) FROM
                       (SELECT created_at FROM chat_notifications IGNORE INDEX (PRIMARY)
                        WHERE delivery_status = 'PENDING' ORDER BY id LIMIT 100) AS first), 0)
             AS notifications_oldest_pending_age_seconds
    UNION ALL
    SELECT 'FAILED',
           (SELECT COUNT(*) FROM (SELECT 1 FROM chat_notifications WHERE delivery_status = 'FAILED' LIMIT {MOST}) AS counted),
           NULL
""")  # noqa: S608 - a number of ours
# The lanes in use, by a loose scan of idx_due (waiting_on, due_at); then each lane by that index alone, the longest due first.
LANES = text("SELECT waiting_on FROM worker_deliveries GROUP BY waiting_on LIMIT 20")
LANE = text(f"""
    SELECT COUNT(*) AS deliveries_waiting, CAST(COALESCE(SUM(due_at <= NOW(3)), 0) AS SIGNED) AS deliveries_due,
           GREATEST(TIMESTAMPDIFF(SECOND, MIN(due_at), NOW(3)), 0) AS deliveries_oldest_due_age_seconds
    FROM (SELECT due_at FROM worker_deliveries FORCE INDEX (idx_due)
          WHERE waiting_on = :lane ORDER BY due_at LIMIT {MOST}) AS lane
""")  # noqa: S608 - a number of ours
# A provider's app, as devices.lane_of names it.
LANE_NAME = "CONCAT(provider, IF(app = 'default', '', CONCAT('.', app)))"
BREAKERS = text(f"""
    SELECT {LANE_NAME} AS provider, opened_at IS NOT NULL AS provider_breaker_open, reason,
           TIMESTAMPDIFF(SECOND, opened_at, NOW(3)) AS open_seconds,
           IF(paused_until > NOW(3), TIMESTAMPDIFF(SECOND, NOW(3), paused_until), 0) AS provider_paused_seconds
    FROM worker_providers ORDER BY 1 LIMIT 60
""")  # noqa: S608 - a constant of this module
# Of ten minutes, by the primary key, which begins with the minute. Dead devices are no failure: their users uninstalled.
FAILING = text(f"""
    SELECT {LANE_NAME} AS provider, IF(SUM(devices) < 50, 0, SUM(IF(outcome IN ('sent', 'dead'), 0, devices)) / SUM(devices))
             AS deliveries_failed_ratio
    FROM worker_delivery_counts WHERE minute >= NOW() - INTERVAL 10 MINUTE GROUP BY 1 ORDER BY SUM(devices) DESC LIMIT 60
""")  # noqa: S608 - a constant of this module
RECENT = text(f"""
    SELECT {LANE_NAME} AS provider, outcome, reason, CAST(SUM(devices) AS SIGNED) AS devices FROM worker_delivery_counts
    WHERE minute >= NOW() - INTERVAL 10 MINUTE GROUP BY 1, 2, 3 ORDER BY devices DESC LIMIT 15
""")  # noqa: S608 - a constant of this module
LAST_HOUR = text(f"""
    SELECT {LANE_NAME} AS provider, outcome, reason, CAST(SUM(devices) AS SIGNED) AS devices FROM worker_delivery_counts
    WHERE minute >= NOW() - INTERVAL 1 HOUR GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC LIMIT 100
""")  # noqa: S608 - a constant of this module
REASONS = text(f"""
    SELECT IF(lease IS NULL, COALESCE(NULLIF(waiting_on, ''), 'nothing'), 'worker') AS waiting_on, reason,
           COUNT(*) AS notifications, CAST(SUM(due_at <= NOW(3)) AS SIGNED) AS due,
           TIMESTAMPDIFF(SECOND, MIN(created_at), NOW()) AS oldest_seconds
    FROM (SELECT * FROM worker_deliveries LIMIT {MOST}) AS entries GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 50
""")  # noqa: S608 - a number of ours


def _backlog(connection: Connection) -> list[Row]:
    strays = [{"status": status or "(empty)", "notifications": number} for status, number in stray_statuses(connection).items()]
    return [*rows(connection, BACKLOG), *strays]


def _lanes(connection: Connection) -> list[Row]:
    lanes = connection.execute(LANES).scalars().all()
    return [{"waiting_on": lane or "nothing", **rows(connection, LANE, lane=lane)[0]} for lane in lanes]


def _providers(connection: Connection) -> list[Row]:
    found = {row["provider"]: row for row in rows(connection, FAILING)}
    breakers = {row["provider"]: row for row in rows(connection, BREAKERS)}
    return [found.get(provider, {}) | breakers.get(provider, {}) for provider in sorted(found.keys() | breakers.keys())]


def _breaker(row: Row) -> str:
    if row.get("provider_breaker_open"):
        return f"OPEN for {duration(row['open_seconds'])}"
    if row.get("provider_paused_seconds"):
        return f"paused for {duration(row['provider_paused_seconds'])} at its own request"
    return "closed: sending"


REASON = Column("reason", lambda row: row.get("reason") or "-")
DEVICES = Column("devices", lambda row: f"{row['devices']:,}")
ROWS = Column("rows", lambda row: f"{row['notifications']:,}")

TABLES = (
    Table("backlog", "Notifications", ("status",), _backlog, (
        Fact("notifications", "Rows of chat_notifications by delivery_status.", "rows", most=MOST),
        Fact("notifications_oldest_pending_age_seconds", "Age of the oldest PENDING row; beat drains every five seconds.",
             "oldest",
             Alert("ChatWorkersBacklogOld", "critical",
                   "The oldest notification has waited to be sent for {value}", "; {notifications} waiting", above=120),
             labels=()),
    )),
    Table("waiting", "Under way or to be tried again", ("waiting_on",), _lanes, (
        Fact("deliveries_waiting", "Rows under way or to be tried again, by what they wait for.", "rows", most=MOST),
        Fact("deliveries_due", "Rows under way or to be tried again that are due.", "due", most=MOST),
        Fact("deliveries_oldest_due_age_seconds", "For how long the first row under way or to be tried again has been due.",
             "overdue by",
             Alert("ChatWorkersRetriesOverdue", "warning",
                   "Notifications have been due for another try for {value}", "; {deliveries_due} due",
                   above=120, where={"waiting_on": ("nothing",)})),
    )),
    Table("providers", "Push providers", ("provider",), _providers, (
        Fact("provider_breaker_open",
             "1 while nothing is sent to the provider but probes, for sustained failures or credentials that it refuses.",
             "breaker",
             Alert("ChatWorkersBreakerOpen", "critical",
                   "Nothing is sent to {provider}", " for {open_seconds}: {reason}", above=0),
             show=_breaker),
        Fact("provider_paused_seconds", "For how long the provider has asked all senders to wait."),
        Fact("deliveries_failed_ratio",
             "Messages of ten minutes that failed, dead devices not among them, of all of them; 0 for fewer than 50.",
             "failing",
             Alert("ChatWorkersDeliveriesFailing", "warning",
                   "{value} of the messages of ten minutes to {provider} failed", above=0.2, minutes=5)),
        REASON,
    ), empty="nothing was sent yet"),
    pause.table("pauses", "Pauses by operators", Fact(
        "delivery_paused_seconds", "For how long an operator has paused the sending to the provider, app or all.", "for",
        Alert("ChatWorkersDeliveryPaused", "warning",
              "An operator has paused the sending to {provider} for {value}", ": {paused_by}, {why}", above=3600),
    ), scans=False),
    Table("recent", "Messages of the last ten minutes", ("provider", "outcome"), RECENT, (DEVICES, REASON)),
    Table("reasons", "Why rows wait", ("waiting_on",), REASONS, (
        ROWS,
        Column("due", lambda row: f"{row['due']:,}"),
        Column("oldest", lambda row: duration(row["oldest_seconds"])),
        REASON,
    ), on_demand=True),
    Table("last_hour", "Messages of the last hour", ("provider", "outcome"), LAST_HOUR, (DEVICES, REASON), on_demand=True),
)  # fmt: skip

DELIVERIES = Counter(
    "deliveries",
    "Messages to single devices that got a result.",
    ("provider", "outcome", "reason"),
    # Reasons are not known beforehand; whoever asks for an increase sums over them.
    known=tuple((provider, kind.value, "") for provider in PROVIDERS for kind in Kind),
)
SEND_SECONDS = Histogram(
    "delivery_send_seconds", "From a message's request to the provider's answer.", ("provider",),
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    Alert("ChatWorkersSendSlow", "warning", "One answer in twenty of {provider} takes longer than {value}",
          above=2.5, minutes=10, window=10),
)  # fmt: skip
DELIVERED_SECONDS = Histogram(
    "delivery_since_created_seconds", "From a row's created_at, which is in whole seconds, to the provider's acceptance.",
    ("provider",), (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0),
    Alert("ChatWorkersDeliveryLate", "warning", "One message in twenty reaches {provider} later than {value} after its row",
          # A burst that an outage made late has left the window long before the ten minutes are over.
          above=5, minutes=10, window=5),
)  # fmt: skip
SETTLED = Counter("notifications_settled", "Notifications by the status they were given.", ("status",))
COUNTED = (DELIVERIES, SEND_SECONDS, DELIVERED_SECONDS, SETTLED)
