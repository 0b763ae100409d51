"""Files that say of a job what tasks/jobs.py says of it agree with that table."""

import re
from pathlib import Path

import pytest

from beat_schedule import BEAT_SCHEDULE
from db.privileges import worker_tables
from devstack.folder import PROJECT
from settings import Settings
from tasks.jobs import JOBS, QUEUES, TASKS, configured, missing, owner

PROCESS = re.compile(
    r"^(\w+): celery -A workers\.app worker -Q (\w+) -n \w+@%h --concurrency (?:\$\{(\w+):-)?(\d+)", re.MULTILINE
)


def test_the_procfile_has_a_worker_for_each_queue() -> None:
    workers = {
        queue: (name, int(children), variable)
        for name, queue, variable, children in PROCESS.findall((PROJECT / "Procfile").read_text())
    }
    assert workers == {
        queue: (queue, children, f"{queue.upper()}_PROCESSES" if children > 1 else "") for queue, children in QUEUES.items()
    }


def test_beat_starts_tasks_of_the_table_only() -> None:
    """And all of them but those of one attachment or recipient, which the API starts."""
    of_the_api = {"tasks.attachments.scan", "tasks.notifications.withdraw"}
    assert {entry["task"] for entry in BEAT_SCHEDULE.values()} == TASKS.keys() - of_the_api


def test_each_job_is_a_package_with_the_tasks_of_the_table(environment: dict[str, str]) -> None:
    from workers.app import app

    app.loader.import_default_modules()
    assert {name for name in app.tasks if name.startswith("tasks.")} == TASKS.keys()
    assert {path.parent.name for path in (PROJECT / "tasks").glob("*/task.py")} == {job.name for job in JOBS}
    assert {app.amqp.router.route({}, task)["queue"].name for task in TASKS} == QUEUES.keys()


def test_each_worker_owned_table_belongs_to_one_job() -> None:
    for table in worker_tables():
        assert [job.name for job in JOBS if table.startswith(job.tables)] == [owner(table)]
    with pytest.raises(LookupError, match="worker_mystery"):
        owner("worker_mystery")


SET: dict[str, object] = {"backup_dir": Path("/srv/backups"), "backup_s3_uri": "s3://backups/chat"}


def test_a_task_is_configured_once_all_that_it_needs_is_set() -> None:
    bare = Settings.model_construct()
    assert missing("tasks.backups.monthly", bare) == ("BACKUP_DIR", "BACKUP_PASSPHRASE_FILE", "BACKUP_S3_URI")
    assert missing("tasks.notifications.drain", bare) == ()
    unsealed = Settings.model_construct(**SET)  # type: ignore[arg-type]
    assert missing("tasks.backups.monthly", unsealed) == ("BACKUP_PASSPHRASE_FILE",)
    assert {task for task in configured(unsealed) if "backups" in task} == {"tasks.backups.daily", "tasks.backups.drill"}
