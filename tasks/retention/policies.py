"""The table of retention policies: the rows of each, and the age at which they are deleted or changed."""

from dataclasses import dataclass
from datetime import timedelta

from db.batches.target import ID, MINUTE, Key, Target
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


def _older(
    name: str, does: str, table: str, age: str, least: timedelta, kept: str, *also: str, key: Key = ID, enabled: bool = True
) -> Policy:
    """Return a policy that deletes the rows whose column `age` is older, and for which the conditions `also` hold."""
    target = Target(table, " AND ".join((f"{age} < :cutoff", KNOWN.format(age), *also)), key=key)
    return Policy(name, does, target, age, least, _defaults(kept, enabled=enabled))


DAY = timedelta(days=1)
# A date of zeros, as of a client without NO_ZERO_DATE, is no age.
KNOWN = "{0} > 0"
ATTACHMENT_ID = Key("attachment_id", 1, 20_000)
# Not by died_at: the API writes rows of worker_dead_devices too, and a column of times holds what is none.
OF_RECIPIENT = Key("recipient_id", 1, 20_000, unique=False, index="idx_recipient", row="device_key")

# By idx_sha256; names of earlier versions had the attachment's id in front.
COPY_IS_GONE = """
    UPDATE worker_scans SET quarantine = 'missing' WHERE sha256 = RIGHT(:stem, 64) AND quarantine LIKE CONCAT('%/', :name)
"""

# `<` as in the reference: a row exactly at the cutoff stays, and NULL is never older. Each predicate is re-stated where
# the row is written, or locked for it, so a row that changed since it was found (unread, reopened) stays.
POLICIES = {
    policy.name: policy
    for policy in (
        _older(
            "read_notifications", "deletes notifications that were read",
            "chat_notifications", "created_at", DAY, "90d", "is_read = 1",
        ),
        _older(
            "unread_notifications", "deletes notifications that were sent and never read",
            "chat_notifications", "created_at", 7 * DAY, "365d", "delivery_status = 'SENT'", "COALESCE(is_read, 0) = 0",
            enabled=False,
        ),
        _older(
            "failed_notifications", "deletes notifications that were given up",
            "chat_notifications", "created_at", 7 * DAY, "90d", "delivery_status = 'FAILED'",
            "NOT EXISTS (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = chat_notifications.id)", enabled=False,
        ),
        _older(
            "bounced_notifications", "deletes notifications that reached nobody or were not wanted",
            "chat_notifications", "created_at", 7 * DAY, "90d", "delivery_status = 'BOUNCED'", enabled=False,
        ),
        Policy(
            "closed_conversations", "sets is_active = false on conversations closed so long ago",
            Target(
                "conversations",
                # The reference's statement, but for one that was reopened: it keeps its closed_at, and people write in it.
                f"closed_at < :cutoff AND {KNOWN.format('closed_at')} AND COALESCE(is_active, 1) = 1"
                " AND (is_closed = 1 OR last_message_at IS NULL OR last_message_at <= closed_at)",
                change="is_active = 0",
            ),
            "closed_at", 7 * DAY, _defaults("365d"),
        ),
        Policy(
            "idle_conversations", "closes conversations in which nothing was said for so long, as INACTIVE_30_DAYS",
            Target(
                "conversations",
                # Reopening updates the row: without the second condition it would be closed again the next night.
                "COALESCE(last_message_at, created_at) < :cutoff AND COALESCE(updated_at, created_at) < :cutoff"
                f" AND COALESCE(is_closed, 0) = 0 AND {KNOWN.format('COALESCE(last_message_at, created_at)')}",
                change="is_closed = 1, closed_at = NOW(), closed_reason = 'INACTIVE_30_DAYS'",
            ),
            "COALESCE(last_message_at, created_at)", 7 * DAY, _defaults("30d", enabled=False),
        ),
        Policy(
            "typing_indicators", "deletes typing indicators that expired so long ago and that the minute job has missed",
            Target(
                "typing_indicators",
                "(expires_at < :cutoff OR expires_at > NOW() + INTERVAL 1 DAY OR started_at < :cutoff - INTERVAL 1 HOUR)",
            ),
            "expires_at", timedelta(0), _defaults("10s"),
        ),
        _older(
            "delivery_history", "deletes the history of notifications that had problems",
            "worker_delivery_history", "settled_at", DAY, "30d",
        ),
        _older(
            "delivery_counts", "deletes the minute counts of deliveries",
            "worker_delivery_counts", "minute", DAY, "90d", key=MINUTE,
        ),
        _older(
            "dead_devices", "forgets dead devices; FCM itself ends a token that was silent for 270 days",
            "worker_dead_devices", "died_at", 30 * DAY, "270d", key=OF_RECIPIENT, enabled=False,
        ),
        _older("scan_events", "deletes the events of virus scans", "worker_scan_events", "happened_at", 30 * DAY, "400d"),
        _older(
            "orphaned_scans", "deletes the scan records of attachments that are gone",
            "worker_scans", "COALESCE(scanned_at, created_at)", DAY, "30d",
            # One that is due or leased is forgotten by the sweep itself; the record of content in quarantine is
            # all that says where the copy lies.
            "due_at IS NULL", "lease IS NULL", "quarantine IN ('', 'missing')",
            "NOT EXISTS (SELECT 1 FROM message_attachments a WHERE a.id = worker_scans.attachment_id)",
            key=ATTACHMENT_ID,
        ),
        _older(
            "retention_runs", "deletes the ledger entries of retention runs that have ended",
            "worker_retention_runs", "started_at", 30 * DAY, "400d", "ended_at IS NOT NULL",
        ),
        _older("events", "deletes events, delivered or not", "worker_events", "happened_at", DAY, "14d"),
        _older("audit", "deletes the audit of operators' commands", "worker_audit", "began_at", 30 * DAY, "400d"),
        Policy(
            "quarantine", "deletes copies of infected files from the quarantine's folder",
            Files("attachments_quarantine_url", "*.infected", COPY_IS_GONE), "", 7 * DAY, _defaults("180d", enabled=False),
        ),
        Policy(
            "archives", "deletes what retention archived before it deleted it",
            Files("retention_archive_dir", "*/*-run*/*.sql.gz"), "", 30 * DAY, _defaults("365d", enabled=False),
        ),
    )
}  # fmt: skip
