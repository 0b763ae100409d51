"""Backups and restore drills: when each was last done and how large it was, whether it is overdue or its last try failed."""

from sqlalchemy import Connection, text

from settings import get_settings, parse_age
from tasks.facts import Alert, Fact, Row, Table, in_words, rows
from tasks.jobs import configured
from tasks.words import duration

# The newest run of each job, tier and outcome, by a loose scan of idx_job (job, tier, outcome, ended_at).
LATEST = text("""
    SELECT r.job, COALESCE(NULLIF(r.tier, ''), 'none') AS tier, r.outcome, UNIX_TIMESTAMP(r.ended_at) AS ended,
           r.detail, r.bytes AS backup_last_success_size_bytes, r.row_count AS backup_last_success_rows,
           r.milliseconds / 1000 AS backup_last_success_duration_seconds,
           r.row_count * 1000 / NULLIF(r.restore_milliseconds, 0) AS backup_drill_rows_per_second,
           UNIX_TIMESTAMP(r.newest_row_at) AS backup_drill_newest_row_timestamp_seconds
    FROM (SELECT job, tier, outcome, MAX(ended_at) AS ended_at FROM worker_backup_runs
          WHERE ended_at <= NOW(3) GROUP BY job, tier, outcome) AS latest
    STRAIGHT_JOIN worker_backup_runs r ON r.job = latest.job AND r.tier = latest.tier AND r.outcome = latest.outcome
      AND r.ended_at = latest.ended_at
    ORDER BY r.job, r.tier LIMIT 50
""")
# When the tables were made is when backups began to be expected.
NOW = text("""
    SELECT UNIX_TIMESTAMP(NOW(3)), (SELECT UNIX_TIMESTAMP(CREATE_TIME) FROM information_schema.TABLES
                                    WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'worker_backup_runs')
""")

# How old the last good one may be, of dumps beyond BACKUP_EVERY; a drill proves one tier a day, in turn.
LATE_SECONDS = 2 * 3600
MOST_SECONDS = {"weekly": 8 * 86_400, "monthly": 33 * 86_400, "drill": 2 * 86_400}
# Each is done in the first night.
FIRST_SECONDS = 26 * 3600
OVERDUE = "backup_overdue_seconds"
NOT_YET = "backup_not_yet_done"
LAST = "backup_last_success_timestamp_seconds"
TASKS = "tasks.backups."


def _backups(connection: Connection) -> list[Row]:
    """Return a row for each job (of a drill, for each tier) that ever ran or is configured."""
    latest = {(row["job"], row["tier"], row["outcome"]): row for row in rows(connection, LATEST)}
    known = {(job, tier) for job, tier, _ in latest}
    never_ran = {task.removeprefix(TASKS) for task in configured(get_settings()) if task.startswith(TASKS)}
    known |= {(job, "none") for job in never_ran - {job for job, _ in known}}
    made = [_row(*key, latest.get((*key, "done")), latest.get((*key, "failed"))) for key in sorted(known)]
    now, installed = map(float, connection.execute(NOW).one())
    pace = parse_age(get_settings().backup_every).total_seconds()
    shipped = {"daily": pace + LATE_SECONDS, "weekly": MOST_SECONDS["weekly"]}.get(get_settings().backup_s3_ship)
    limits = {**MOST_SECONDS, "daily": pace + LATE_SECONDS, **({"ship": shipped} if shipped else {})}
    for job, most in limits.items():
        if own := [row for row in made if row["backup"] == job]:
            newest = max(own, key=lambda row: row[LAST])
            age = now - (newest[LAST] or installed)
            newest[OVERDUE] = max(age - (most if newest[LAST] else FIRST_SECONDS), -age, 0.0)
            newest[NOT_YET] = not newest[LAST] and not newest[OVERDUE]
            newest["last"] = f"last done {duration(age)} ago" if newest[LAST] else "never done"
    return made


def _row(job: str, tier: str, done: Row | None, failed: Row | None) -> Row:
    return {
        "backup": job,
        "tier": tier,
        LAST: done["ended"] if done else 0,
        "backup_last_run_failed": failed is not None and (done is None or failed["ended"] > done["ended"]),
        "failed_timestamp_seconds": failed and failed["ended"],
        "why": failed and failed["detail"],
        **{name: value for name, value in (done or {}).items() if name.startswith("backup_")},
    }


def _last_failed(row: Row) -> str:
    at = row["failed_timestamp_seconds"]
    return f"{in_words('failed_timestamp_seconds', at)}: {row['why']}" if at else "never"


TABLES = (
    Table("runs", "Backups and drills", ("backup", "tier"), _backups, (
        Fact(LAST, "When the backup or drill was last done, 0 for never.", "last done"),
        Fact(OVERDUE, "By how much the last good one is older than it may be, or the first has not been made in time.",
             alert=Alert("ChatWorkersBackupStale", "critical",
                         "Backups or drills are overdue: {backup}", ", {last}", above=0, minutes=15),
             labels=("backup",)),
        Fact(NOT_YET, "1 if none was ever done and the first night has not passed.",
             alert=Alert("ChatWorkersBackupNotYet", "warning", "Not yet done, for the first night is yet to come: {backup}",
                         above=0),
             labels=("backup",)),
        Fact("backup_last_success_size_bytes", "Size of what was last made or proved.", "size"),
        Fact("backup_last_success_rows", "Rows that were dumped, or proved by a drill.", "rows"),
        Fact("backup_last_success_duration_seconds", "How long it took.", "took"),
        Fact("backup_drill_rows_per_second", "Of a drill: how fast a restore is, from where the backup lies to its last row."),
        Fact("backup_drill_newest_row_timestamp_seconds", "Of a drill: when the newest row that came back was made."),
        Fact("backup_last_run_failed",
             "1 if the last try failed. A backup is tried again within the hour, a drill the next day.", "last failed",
             Alert("ChatWorkersBackupFailed", "warning",
                   "The last {backup} failed (tier: {tier})", ": {why}", above=0, minutes=5),
             show=_last_failed),
    ), empty="none was made yet", needs="backup_dir"),
)  # fmt: skip
