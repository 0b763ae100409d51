"""Push delivery: the backlog and its age, what waits and why, the providers' breakers, outcomes of the last ten minutes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection, text

from db.rows import dicts
from tasks.notifications.status import COUNT_STATUS, OLDEST_PENDING
from tasks.words import count, duration
from workers.operations.report import Section, Table, Trouble, gauge

# Each count reads so many entries of an index at most: some 20 ms, on a table of five million rows too.
MOST_COUNTED = 100_000
MOST_LANES = 20

# The lanes in use, by a loose scan of idx_due (waiting_on, due_at); then each lane by that index alone, the longest due first.
LANES = text("SELECT waiting_on FROM worker_deliveries GROUP BY waiting_on LIMIT :most")
LANE = text("""
    SELECT COUNT(*) AS notifications, CAST(COALESCE(SUM(due_at <= NOW(3)), 0) AS SIGNED) AS due,
           GREATEST(TIMESTAMPDIFF(SECOND, MIN(due_at), NOW(3)), 0) AS oldest_due_age
    FROM (SELECT due_at FROM worker_deliveries FORCE INDEX (idx_due)
          WHERE waiting_on = :lane ORDER BY due_at LIMIT :most) AS lane
""")
PROVIDERS = text("""
    SELECT provider, reason, opened_at, TIMESTAMPDIFF(SECOND, opened_at, NOW(3)) AS open_seconds,
           IF(paused_until > NOW(3), TIMESTAMPDIFF(SECOND, NOW(3), paused_until), NULL) AS paused_seconds
    FROM worker_providers ORDER BY provider LIMIT 20
""")
# By the primary key, which begins with the minute.
RECENT = text("""
    SELECT provider, outcome, reason, CAST(SUM(devices) AS SIGNED) AS devices FROM worker_delivery_counts
    WHERE minute >= NOW() - INTERVAL 10 MINUTE GROUP BY provider, outcome, reason ORDER BY devices DESC LIMIT 15
""")

# Beat drains every five seconds.
LATE_SECONDS = 120
BAD_SHARE = 0.2
ENOUGH = 50
# What a healthy fleet sees too: sent, the user uninstalled, not this project's token, our payload's own fault.
FINE = frozenset({"sent", "dead"})


@dataclass(frozen=True, slots=True)
class Notifications:
    """How delivery stands. Ages in seconds; a count of MOST_COUNTED means that many or more."""

    pending: int
    failed: int
    oldest_pending_age: int | None
    lanes: list[dict[str, Any]]
    """Rows with an entry of their own, by the provider that they wait for, '' for none: under way, or to be tried again."""
    providers: list[dict[str, Any]]
    last_10_minutes: list[dict[str, Any]]


def read(connection: Connection) -> Notifications:
    """Return how delivery stands now."""

    def status(word: str) -> int:
        return int(connection.execute(COUNT_STATUS, {"status": word, "most": MOST_COUNTED}).scalar_one())

    lanes = list(connection.execute(LANES, {"most": MOST_LANES}).scalars())
    return Notifications(
        status("PENDING"),
        status("FAILED"),
        connection.execute(OLDEST_PENDING).scalar_one_or_none(),
        [{"waiting_on": lane, **dicts(connection, LANE, lane=lane, most=MOST_COUNTED)[0]} for lane in lanes],
        dicts(connection, PROVIDERS),
        dicts(connection, RECENT),
    )


def metrics(found: Notifications) -> Iterator[Metric]:
    """Yield the gauges; what is counted by the processes is in `counters`."""
    counted = f"of which at most {MOST_COUNTED:,} are counted"
    backlog: list[tuple[tuple[str, ...], float | None]] = [(("PENDING",), found.pending), (("FAILED",), found.failed)]
    yield gauge("notifications", f"Rows of chat_notifications by delivery_status, {counted}.", backlog, "status")
    # Without a row the age is zero: an alert on a series that comes and goes would never resolve.
    yield gauge(
        "notifications_oldest_pending_age_seconds", "Age of the oldest PENDING row.", [((), found.oldest_pending_age or 0)]
    )
    lanes = [((lane["waiting_on"] or "nothing",), lane) for lane in found.lanes]
    waits = "Rows under way or to be tried again, by the provider that they wait for"
    yield gauge("deliveries_waiting", f"{waits}, {counted}.", [(k, v["notifications"]) for k, v in lanes], "waiting_on")
    yield gauge("deliveries_due", f"{waits}: those that are due, {counted}.", [(k, v["due"]) for k, v in lanes], "waiting_on")
    yield gauge(
        "deliveries_oldest_due_age_seconds",
        f"{waits}: for how long the first has been due.",
        [(k, v["oldest_due_age"]) for k, v in lanes],
        "waiting_on",
    )
    providers = [((p["provider"],), p) for p in found.providers]
    yield gauge(
        "provider_breaker_open",
        "1 while nothing is sent to the provider but probes.",
        [(k, p["opened_at"] is not None) for k, p in providers],
        "provider",
    )
    yield gauge(
        "provider_paused_seconds",
        "For how long the provider has asked all senders to wait.",
        [(k, p["paused_seconds"] or 0) for k, p in providers],
        "provider",
    )


def troubles(found: Notifications) -> Iterator[Trouble]:
    """Yield what is wrong now."""
    if (found.oldest_pending_age or 0) > LATE_SECONDS:
        yield Trouble(
            "ChatWorkersBacklogOld",
            "critical",
            f"{count(found.pending, MOST_COUNTED)} notifications wait to be sent, the oldest for"
            f" {duration(found.oldest_pending_age or 0)}.",
        )
    for lane in found.lanes:
        if not lane["waiting_on"] and (lane["oldest_due_age"] or 0) > LATE_SECONDS:
            yield Trouble(
                "ChatWorkersRetriesOverdue",
                "warning",
                f"{count(lane['due'], MOST_COUNTED)} notifications are due for another try, the first for"
                f" {duration(lane['oldest_due_age'])}.",
            )
    for provider in found.providers:
        if provider["opened_at"] is not None:
            yield Trouble(
                "ChatWorkersBreakerOpen",
                "critical",
                f"Nothing is sent to {provider['provider']} for {duration(provider['open_seconds'])}: {provider['reason']}.",
            )
    devices = sum(row["devices"] for row in found.last_10_minutes)
    bad = [row for row in found.last_10_minutes if row["outcome"] not in FINE]
    failed = sum(row["devices"] for row in bad)
    if devices >= ENOUGH and failed > BAD_SHARE * devices:
        yield Trouble(
            "ChatWorkersDeliveriesFailing",
            "warning",
            f"{failed / devices:.0%} of the messages of the last ten minutes failed, most of all with: {bad[0]['reason']}.",
        )


def tables(found: Notifications) -> Iterator[Table]:
    """Yield what a person wants to see."""
    backlog = [("PENDING", count(found.pending, MOST_COUNTED), _age(found.oldest_pending_age))]
    backlog += [
        (
            f"waiting for {lane['waiting_on']}" if lane["waiting_on"] else "under way or to be tried again",
            f"{count(lane['notifications'], MOST_COUNTED)}, of which {count(lane['due'], MOST_COUNTED)} due",
            _age(lane["oldest_due_age"] if lane["due"] else None),
        )
        for lane in found.lanes
    ]
    backlog.append(("FAILED, given up ones included", count(found.failed, MOST_COUNTED), "-"))
    yield Table("Notifications", ("state", "rows", "oldest, overdue by"), tuple(backlog))
    yield Table(
        "Push providers",
        ("provider", "breaker", "reason"),
        tuple(
            (
                p["provider"],
                f"OPEN for {duration(p['open_seconds'])}"
                if p["opened_at"]
                else f"paused for {duration(p['paused_seconds'])} at its own request"
                if p["paused_seconds"]
                else "closed: sending",
                p["reason"] or "-",
            )
            for p in found.providers
        ),
        "nothing was sent yet",
    )
    yield Table(
        "Messages of the last ten minutes",
        ("provider", "outcome", "devices", "a minute", "reason"),
        tuple(
            (r["provider"], r["outcome"], int(r["devices"]), f"{r['devices'] / 10:.1f}", r["reason"] or "-")
            for r in found.last_10_minutes
        ),
        "none",
    )


def _age(seconds: int | None) -> str:
    return "-" if seconds is None else duration(seconds)


SECTION = Section("notifications", read, metrics, troubles, tables)
