"""Virus scans: attachments by verdict, how many are due for a scan and for how long, infected uploads."""

from sqlalchemy import Connection, text

from settings import get_settings
from tasks import pause
from tasks.attachments.verdicts import WORDS
from tasks.facts import Alert, Counter, Fact, Row, Table, rows

# As for notifications: each count reads so many entries of an index at most.
MOST = 100_000

# By idx_verdict (verdict, attachment_id) and idx_due (lane, due_at), which alone are read.
VERDICTS = text(
    " UNION ALL ".join(
        f"SELECT '{word}' AS verdict, COUNT(*) AS attachments FROM (SELECT 1 FROM worker_scans FORCE INDEX (idx_verdict)"  # noqa: S608 - ours
        f" WHERE verdict = '{word}' LIMIT {MOST}) AS counted"
        for word in WORDS
    )
)
DUE = text(
    " UNION ALL ".join(
        f"SELECT '{name}' AS lane, COUNT(*) AS attachments_due,"  # noqa: S608 - words and numbers of ours
        " COALESCE(TIMESTAMPDIFF(SECOND, MIN(due_at), NOW(3)), 0) AS attachments_oldest_due_age_seconds"
        " FROM (SELECT due_at FROM worker_scans FORCE INDEX (idx_due)"
        f" WHERE lane = {number} AND due_at <= NOW(3) ORDER BY due_at LIMIT {MOST}) AS due"
        for number, name in enumerate(("uploads", "re-scans"))
    )
)
# Uploads that no sweep has made entries for: without a worker nobody does. Of the newest rows by their primary key, and of one
# day: what is older the patrol finds in its own time.
UNSEEN = text("""
    SELECT COUNT(*) AS attachments_due,
           COALESCE(TIMESTAMPDIFF(SECOND, MIN(created_at), NOW()), 0) AS attachments_oldest_due_age_seconds
    FROM (SELECT a.created_at, a.scanned_for_virus, s.attachment_id
          FROM message_attachments a FORCE INDEX (PRIMARY) LEFT JOIN worker_scans s ON s.attachment_id = a.id
          ORDER BY a.id DESC LIMIT 2000) AS newest
    WHERE COALESCE(scanned_for_virus, 0) = 0 AND attachment_id IS NULL AND COALESCE(created_at > NOW() - INTERVAL 1 DAY, TRUE)
""")


def _due(connection: Connection) -> list[Row]:
    uploads, rescans = rows(connection, DUE)
    if get_settings().attachments_url is not None:  # else nobody means to scan them
        (unseen,) = rows(connection, UNSEEN)
        uploads["attachments_due"] += unseen["attachments_due"]
        age = "attachments_oldest_due_age_seconds"
        uploads[age] = max(uploads[age], unseen[age])
    return [uploads, rescans]


TABLES = (
    Table("verdicts", "Attachments", ("verdict",), VERDICTS, (
        Fact("attachments",
             "Attachments by the verdict that holds now; unverified: none yet for long, they stay blocked and are tried on.",
             "attachments",
             Alert("ChatWorkersAttachmentsUnverified", "warning",
                   "Attachments that could not be scanned and stay blocked: {value}",
                   above=0, minutes=10, where={"verdict": ("unverified",)}),
             most=MOST),
    ), lists=lambda row: row["attachments"], needs="attachments_url"),
    Table("due", "Scans due", ("lane",), _due, (
        Fact("attachments_due", "Attachments to be scanned now.", "attachments", most=MOST),
        Fact("attachments_oldest_due_age_seconds", "For how long the first attachment of the lane has been due.", "overdue by",
             Alert("ChatWorkersScansOverdue", "critical",
                   "Uploads have waited for their scan for {value} and are not served meanwhile", "; {attachments_due} waiting",
                   above=300, where={"lane": ("uploads",)})),
    ), lists=lambda row: row["attachments_due"]),
    pause.table("scan_pauses", "Pause of scans by an operator", Fact(
        "scans_paused_seconds", "For how long an operator has paused the scans.", "for"
    ), scans=True),
)  # fmt: skip

SCANS = Counter(
    "scans", "Attachments by the verdict they were given.", ("verdict",),
    Alert("ChatWorkersInfectedUpload", "warning",
          "Infected attachments within 15 minutes, blocked, whose uploaders are worth knowing: {value}",
          above=0, minutes=0, where={"verdict": ("infected",)}, window=15),
    known=tuple((word,) for word in WORDS),
)  # fmt: skip
