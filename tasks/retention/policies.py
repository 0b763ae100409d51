"""The table of retention policies: the rows of each, and the age at which they are deleted or changed."""

from dataclasses import dataclass
from datetime import timedelta

from db.batches.target import MINUTE, Key, Target
from settings import PolicySettings
from tasks.retention.files import Files


@dataclass(frozen=True, slots=True)
class Policy:
    """Rows or files of `target` whose `age_column` is older than the age. `shortest` is the least age that may be set."""

    name: str
    does: str
    target: Target | Files
    age_column: str
    shortest: timedelta
    defaults: PolicySettings

    @property
    def deletes(self) -> bool:
        return isinstance(self.target, Files) or self.target.change is None

    @property
    def archives(self) -> bool:
        """Whether its rows can be archived before they are deleted."""
        return isinstance(self.target, Target) and self.deletes


def _defaults(age: str, *, enabled: bool = True) -> PolicySettings:
    return PolicySettings(
        enabled=enabled,
        age=age,
        hours="any",
        rows_per_run=5_000_000,
        minutes_per_run=20,
        batch_rows=5000,
        archive=False,
    )


DAY = timedelta(days=1)
ATTACHMENT_ID = Key("attachment_id", 1, 20_000)
DIED_AT = Key("died_at", timedelta(milliseconds=1), 86_400_000, unique=False, index="idx_died_at")

# By idx_sha256; names of earlier versions had the attachment's id in front.
COPY_IS_GONE = """
    UPDATE worker_scans SET quarantine = 'missing' WHERE sha256 = RIGHT(:stem, 64) AND quarantine LIKE CONCAT('%/', :name)
"""

# `<` as in the reference: a row exactly at the cutoff stays, and NULL is never older. Each predicate is re-stated in the
# write, so a row that changed between search and write (unread, reopened) stays.
POLICIES = {
    policy.name: policy
    for policy in (
        Policy(
            "read_notifications",
            "deletes notifications that were read",
            Target("chat_notifications", "created_at < :cutoff AND is_read = 1"),
            "created_at",
            DAY,
            _defaults("90d"),
        ),
        Policy(
            "unread_notifications",
            "deletes notifications that were sent and never read",
            Target("chat_notifications", "created_at < :cutoff AND delivery_status = 'SENT' AND COALESCE(is_read, 0) = 0"),
            "created_at",
            7 * DAY,
            _defaults("365d", enabled=False),
        ),
        Policy(
            "failed_notifications",
            "deletes notifications that were given up",
            Target(
                "chat_notifications",
                "created_at < :cutoff AND delivery_status = 'FAILED'"
                " AND NOT EXISTS (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = chat_notifications.id)",
            ),
            "created_at",
            7 * DAY,
            _defaults("90d", enabled=False),
        ),
        Policy(
            "bounced_notifications",
            "deletes notifications that reached nobody or were not wanted",
            Target("chat_notifications", "created_at < :cutoff AND delivery_status = 'BOUNCED'"),
            "created_at",
            7 * DAY,
            _defaults("90d", enabled=False),
        ),
        Policy(
            "closed_conversations",
            "sets is_active = false on conversations closed so long ago",
            Target(
                "conversations",
                # The reference's statement, but for one that was reopened: it keeps its closed_at, and people write in it.
                "closed_at < :cutoff AND COALESCE(is_active, 1) = 1"
                " AND (is_closed = 1 OR last_message_at IS NULL OR last_message_at <= closed_at)",
                change="is_active = 0",
            ),
            "closed_at",
            7 * DAY,
            _defaults("365d"),
        ),
        Policy(
            "idle_conversations",
            "closes conversations in which nothing was said for so long, as INACTIVE_30_DAYS",
            Target(
                "conversations",
                # Reopening updates the row: without the second condition it would be closed again the next night.
                "COALESCE(last_message_at, created_at) < :cutoff AND COALESCE(updated_at, created_at) < :cutoff"
                " AND COALESCE(is_closed, 0) = 0",
                change="is_closed = 1, closed_at = NOW(), closed_reason = 'INACTIVE_30_DAYS'",
            ),
            "COALESCE(last_message_at, created_at)",
            7 * DAY,
            _defaults("30d", enabled=False),
        ),
        Policy(
            "typing_indicators",
            "deletes typing indicators that expired so long ago and that the minute job has missed",
            Target(
                "typing_indicators",
                "(expires_at < :cutoff OR expires_at > NOW() + INTERVAL 1 DAY OR started_at < :cutoff - INTERVAL 1 HOUR)",
            ),
            "expires_at",
            timedelta(0),
            _defaults("10s"),
        ),
        Policy(
            "delivery_history",
            "deletes the history of notifications that had problems",
            Target("worker_delivery_history", "settled_at < :cutoff"),
            "settled_at",
            DAY,
            _defaults("30d"),
        ),
        Policy(
            "delivery_counts",
            "deletes the minute counts of deliveries",
            Target("worker_delivery_counts", "minute < :cutoff", key=MINUTE),
            "minute",
            DAY,
            _defaults("90d"),
        ),
        Policy(
            "dead_devices",
            "forgets dead devices; FCM itself ends a token that was silent for 270 days",
            Target("worker_dead_devices", "died_at < :cutoff", key=DIED_AT),
            "died_at",
            30 * DAY,
            _defaults("270d", enabled=False),
        ),
        Policy(
            "scan_events",
            "deletes the events of virus scans",
            Target("worker_scan_events", "happened_at < :cutoff"),
            "happened_at",
            30 * DAY,
            _defaults("400d"),
        ),
        Policy(
            "orphaned_scans",
            "deletes the scan records of attachments that are gone",
            Target(
                "worker_scans",
                # One that is due or leased is forgotten by the sweep itself; the record of content in quarantine is
                # all that says where the copy lies.
                "COALESCE(scanned_at, created_at) < :cutoff AND due_at IS NULL AND lease IS NULL"
                " AND quarantine IN ('', 'missing')"
                " AND NOT EXISTS (SELECT 1 FROM message_attachments a WHERE a.id = worker_scans.attachment_id)",
                key=ATTACHMENT_ID,
            ),
            "COALESCE(scanned_at, created_at)",
            DAY,
            _defaults("30d"),
        ),
        Policy(
            "retention_runs",
            "deletes the ledger entries of retention runs that have ended",
            Target("worker_retention_runs", "started_at < :cutoff AND ended_at IS NOT NULL"),
            "started_at",
            30 * DAY,
            _defaults("400d"),
        ),
        Policy(
            "audit",
            "deletes the audit of operators' commands",
            Target("worker_audit", "began_at < :cutoff"),
            "began_at",
            30 * DAY,
            _defaults("400d"),
        ),
        Policy(
            "quarantine",
            "deletes copies of infected files from the quarantine's folder",
            Files("attachments_quarantine_url", "*.infected", COPY_IS_GONE),
            "",
            7 * DAY,
            _defaults("180d", enabled=False),
        ),
        Policy(
            "archives",
            "deletes what retention archived before it deleted it",
            Files("retention_archive_dir", "*/*-run*/*.sql.gz"),
            "",
            30 * DAY,
            _defaults("365d", enabled=False),
        ),
    )
}
