"""What runs when, in UTC: the one table that an operator edits."""

from datetime import timedelta
from typing import Any

from celery.schedules import BaseSchedule, crontab, schedule

# Jobs read their due work from MySQL, so a tick that waited in the queue past the next one has nothing left to do: each
# entry expires instead of piling up behind an outage. A worker judges that by its own host's clock, so no entry expires
# before five minutes, which is more than clocks that follow NTP differ by; the ticks that an outage leaves end at once.


def every(seconds: float) -> schedule:
    """Return a schedule that ticks each `seconds`."""
    return schedule(timedelta(seconds=seconds))


def entry(task: str, when: BaseSchedule, *, expires: int) -> dict[str, Any]:
    """Return a beat entry for `task`; its message is dropped if no worker has taken it within `expires` seconds."""
    return {"task": task, "schedule": when, "options": {"expires": expires}}


BEAT_SCHEDULE = {
    # name                                task                                  when        dropped after, seconds
    "notifications-drain":          entry("tasks.notifications.drain",          every(5),   expires=300),
    "notifications-retry-failed":   entry("tasks.notifications.retry_failed",   every(5),   expires=300),
    "notifications-adopt":          entry("tasks.notifications.adopt",          every(60),  expires=300),
    "attachments-sweep":            entry("tasks.attachments.sweep",            every(10),  expires=300),
    "events-deliver":               entry("tasks.events.deliver",                every(5),   expires=300),
    "typing-indicators-expire":     entry("tasks.typing_indicators.expire",     every(60),  expires=300),
    # Each policy's hours, age and pause are in the table worker_retention_policies, not here. Each tick looks which are due:
    # once a day, from the first of the policy's hours on, else from 01:00.
    "retention-notifications":      entry("tasks.retention.purge_notifications",      crontab(minute=30), expires=3000),
    "retention-conversations":      entry("tasks.retention.deactivate_conversations", crontab(minute=15), expires=3000),
    "retention-typing-indicators":  entry("tasks.retention.purge_typing_indicators",  every(3600),        expires=600),
    "retention-worker-tables":      entry("tasks.retention.purge_worker_tables",      crontab(minute=45), expires=3000),

    # Each looks whether it is due, by BACKUP_HOUR and BACKUP_EVERY (no dump since, no archive of the last seven days, none
    # shipped this month, no drill today), so the hours after the first are further tries of one that failed or was missed.
    "backups-daily":                entry("tasks.backups.daily",                crontab(minute=10), expires=3000),
    "backups-weekly":               entry("tasks.backups.weekly",               crontab(minute=30), expires=3000),
    "backups-monthly":              entry("tasks.backups.monthly",              crontab(minute=50), expires=3000),
    "backups-drill":                entry("tasks.backups.drill",                crontab(minute=40), expires=3000),
}  # fmt: skip
