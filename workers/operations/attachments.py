"""Virus scans: attachments by verdict, what is due, and for how long."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection, text

from settings import get_settings
from tasks.attachments.verdicts import WORDS
from tasks.words import count, duration
from workers.operations.report import Section, Table, Trouble, gauge

# As for notifications: each count reads so many entries of an index at most.
MOST_COUNTED = 100_000
LANES = {"uploads": 0, "re-scans": 1}

# By idx_verdict (verdict, attachment_id) and idx_due (lane, due_at), which alone are read.
VERDICT = text("""
    SELECT COUNT(*) FROM (
      SELECT 1 FROM worker_scans FORCE INDEX (idx_verdict) WHERE verdict = :verdict LIMIT :most) AS counted
""")
DUE = text("""
    SELECT COUNT(*) AS attachments, TIMESTAMPDIFF(SECOND, MIN(due_at), NOW(3)) AS oldest_age
    FROM (SELECT due_at FROM worker_scans FORCE INDEX (idx_due)
          WHERE lane = :lane AND due_at <= NOW(3) ORDER BY due_at LIMIT :most) AS due
""")

# Uploads that no sweep has made entries for: without a worker nobody does. Of the newest rows by their primary key, and of one
# day: what is older the patrol finds in its own time.
MOST_UNSEEN = 2000
UNSEEN = text("""
    SELECT COUNT(*) AS attachments, TIMESTAMPDIFF(SECOND, MIN(created_at), NOW()) AS oldest_age
    FROM (SELECT a.created_at, a.scanned_for_virus, s.attachment_id
          FROM message_attachments a FORCE INDEX (PRIMARY) LEFT JOIN worker_scans s ON s.attachment_id = a.id
          ORDER BY a.id DESC LIMIT :most) AS newest
    WHERE COALESCE(scanned_for_virus, 0) = 0 AND attachment_id IS NULL AND created_at > NOW() - INTERVAL 1 DAY
""")

LATE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Lane:
    """Attachments that are due now; the age is how long the first has been due, in seconds."""

    attachments: int
    oldest_age: int


@dataclass(frozen=True, slots=True)
class Attachments:
    """How scanning stands; a count of MOST_COUNTED means that many or more."""

    verdicts: dict[str, int]
    due: dict[str, Lane]


def read(connection: Connection) -> Attachments:
    """Return how scanning stands now."""
    most = {"most": MOST_COUNTED}
    rows = {name: connection.execute(DUE, {"lane": lane, **most}).one() for name, lane in LANES.items()}
    due = {name: Lane(row.attachments, row.oldest_age or 0) for name, row in rows.items()}
    if get_settings().attachments_url is not None:  # else nobody means to scan them
        unseen = connection.execute(UNSEEN, {"most": MOST_UNSEEN}).one()
        seen = due["uploads"]
        due["uploads"] = Lane(seen.attachments + unseen.attachments, max(seen.oldest_age, unseen.oldest_age or 0))
    return Attachments({word: int(connection.execute(VERDICT, {"verdict": word, **most}).scalar_one()) for word in WORDS}, due)


def metrics(found: Attachments) -> Iterator[Metric]:
    """Yield the gauges; scans as they happen are counted by the processes."""
    counted = f"of which at most {MOST_COUNTED:,} are counted"
    yield gauge(
        "attachments",
        f"Attachments by the verdict that holds now, {counted}.",
        [((word,), number) for word, number in found.verdicts.items()],
        "verdict",
    )
    due = [((name,), lane) for name, lane in found.due.items()]
    yield gauge("attachments_due", f"Attachments to be scanned now, {counted}.", [(k, v.attachments) for k, v in due], "lane")
    yield gauge(
        "attachments_oldest_due_age_seconds",
        "For how long the first attachment of the lane has been due.",
        [(k, v.oldest_age) for k, v in due],
        "lane",
    )


def troubles(found: Attachments) -> Iterator[Trouble]:
    """Yield what is wrong now."""
    uploads = found.due["uploads"]
    if uploads.oldest_age > LATE_SECONDS:
        yield Trouble(
            "ChatWorkersScansOverdue",
            "critical",
            f"{count(uploads.attachments, MOST_COUNTED)} uploads wait for their scan, the oldest for"
            f" {duration(uploads.oldest_age)}; they are not served meanwhile.",
        )
    if found.verdicts["unverified"]:
        yield Trouble(
            "ChatWorkersAttachmentsUnverified",
            "warning",
            f"{count(found.verdicts['unverified'], MOST_COUNTED)} attachments could not be scanned and stay blocked.",
        )


def tables(found: Attachments) -> Iterator[Table]:
    """Yield what a person wants to see."""
    if not any(found.verdicts.values()) and not found.due["uploads"].attachments:
        return
    yield Table(
        "Attachments",
        ("verdict", "attachments"),
        tuple((word, count(number, MOST_COUNTED)) for word, number in found.verdicts.items() if number),
    )
    yield Table(
        "Scans due",
        ("lane", "attachments", "oldest, overdue by"),
        tuple(
            (name, count(lane.attachments, MOST_COUNTED), duration(lane.oldest_age) if lane.attachments else "-")
            for name, lane in found.due.items()
        ),
    )


SECTION = Section("attachments", read, metrics, troubles, tables)
