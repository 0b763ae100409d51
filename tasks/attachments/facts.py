"""Virus scans: attachments by verdict, how many are due for a scan and for how long, infected uploads."""

from sqlalchemy import text

from tasks import pause
from tasks.attachments.verdicts import WORDS
from tasks.facts import Alert, Counter, Fact, Table

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
    Table("due", "Scans due", ("lane",), DUE, (
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
