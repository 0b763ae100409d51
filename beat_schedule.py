"""What runs when, in UTC: the one table that an operator edits."""

from datetime import timedelta
from typing import Any

from celery.schedules import schedule

# Jobs read their due work from MySQL, so a tick that waited in the queue past the next one has nothing left to do: each
# entry expires instead of piling up behind an outage.


def every(seconds: float) -> schedule:
    """Return a schedule that ticks each `seconds`."""
    return schedule(timedelta(seconds=seconds))


def entry(task: str, when: schedule, *, expires: int) -> dict[str, Any]:
    """Return a beat entry for `task`; its message is dropped if no worker has taken it within `expires` seconds."""
    return {"task": task, "schedule": when, "options": {"expires": expires}}


BEAT_SCHEDULE = {
    # name                                task                                  when        dropped after, seconds
    "notifications-drain":          entry("tasks.notifications.drain",          every(5),   expires=10),
    "notifications-retry-failed":   entry("tasks.notifications.retry_failed",   every(5),   expires=10),
    "attachments-sweep":            entry("tasks.attachments.sweep",            every(10),  expires=20),
}  # fmt: skip
