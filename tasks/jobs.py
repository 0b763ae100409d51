"""The table of jobs: each one's tasks, queue, the settings that it needs and its tables. A new job starts and ends here.

Files that an operator edits (the Procfile, beat_schedule.py) say some of it again; tests/test_jobs.py compares them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from settings import Settings

# Queues are latency classes: a backup can never delay a push. Each is drained by the Procfile's process of its name with so
# many children, or as many as the variable …_PROCESSES says; backups and the delivery of events run one at a time.
QUEUES = {"notifications": 2, "attachments": 2, "housekeeping": 3, "events": 1, "backups": 1}

# The header by which a message says who gave the order: an operator's name, BEAT, or WORKER for a task that goes on. The API
# says nothing.
STARTED_BY, LONGEST_NAME, BEAT, WORKER = "started_by", 100, "beat", "worker"


@dataclass(frozen=True, slots=True)
class Job:
    """A package in tasks/. Nothing starts its tasks where one of the settings that it `needs` is not set."""

    name: str
    queue: str
    tasks: Mapping[str, tuple[str, ...]]
    """The settings that each task needs besides those of the job."""
    needs: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    """What the names of its worker-owned tables begin with."""


JOBS = (
    Job(
        "notifications",
        queue="notifications",
        tasks={"drain": (), "retry_failed": (), "adopt": (), "withdraw": ("push_apps_file",)},
        tables=("worker_deliver", "worker_providers", "worker_dead_devices", "worker_pauses"),
    ),
    Job(
        "attachments",
        queue="attachments",
        tasks={"scan": (), "sweep": ()},
        needs=("attachments_url",),
        tables=("worker_scan",),
    ),
    Job("typing_indicators", queue="housekeeping", tasks={"expire": ()}),
    Job(
        "retention",
        queue="housekeeping",
        tasks={
            "purge_notifications": (),
            "deactivate_conversations": (),
            "purge_typing_indicators": (),
            "purge_worker_tables": (),
        },
        tables=("worker_retention", "worker_heartbeat", "worker_audit"),
    ),
    Job(
        "events",
        queue="events",
        tasks={"deliver": ()},
        needs=("events_url", "events_secret_file"),
        tables=("worker_events",),
    ),
    Job(
        "backups",
        queue="backups",
        tasks={
            "daily": (),
            # Archives are sealed, so they need the passphrase, and only archives are shipped.
            "weekly": ("backup_passphrase_file",),
            "monthly": ("backup_passphrase_file", "backup_s3_uri"),
            "drill": (),
        },
        needs=("backup_dir",),
        tables=("worker_backup",),
    ),
)

TASKS = {f"tasks.{job.name}.{task}": job for job in JOBS for task in job.tasks}


def missing(task: str, settings: Settings) -> tuple[str, ...]:
    """Return the variables without which this task cannot be done, and which are not set."""
    job = TASKS[task]
    needs = (*job.needs, *job.tasks[task.rpartition(".")[2]])
    return tuple(name.upper() for name in needs if not getattr(settings, name))


def configured(settings: Settings) -> list[str]:
    """Return the tasks that can be done with these settings."""
    return [task for task in TASKS if not missing(task, settings)]


def owner(table: str) -> str:
    """Return the name of the job that a worker-owned table belongs to. Raise LookupError if no job's tables begin like it."""
    for job in JOBS:
        if table.startswith(job.tables):
            return job.name
    raise LookupError(f"no job in tasks/jobs.py owns the table {table}")
