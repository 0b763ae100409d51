"""What the environment makes of Celery's settings."""

from pathlib import Path

import pytest

from settings import get_settings
from workers.celery_config import celery_config


def jobs(environment: dict[str, str], **changes: object) -> set[str]:
    entries = celery_config(get_settings().model_copy(update=changes))["beat_schedule"]
    return {entry["task"].split(".")[1] for entry in entries.values()}


def test_jobs_that_are_not_configured_are_not_scheduled(environment: dict[str, str]) -> None:
    """Nobody would take their messages, and Redis would fill."""
    without = jobs(environment, attachments_url=None, backup_dir=None)
    assert without == {"notifications", "typing_indicators", "retention"}


def test_jobs_that_are_configured_are_scheduled(environment: dict[str, str]) -> None:
    configured = jobs(environment, attachments_url="file:///srv/uploads", backup_dir=Path("/srv/backups"))
    assert configured >= {"attachments", "backups"}


@pytest.mark.parametrize(
    ("passphrase", "bucket", "tasks"),
    [
        (None, None, {"daily", "drill"}),
        (None, "s3://backups/chat", {"daily", "drill"}),
        (Path("/etc/passphrase"), None, {"daily", "weekly", "drill"}),
        (Path("/etc/passphrase"), "s3://backups/chat", {"daily", "weekly", "monthly", "drill"}),
    ],
)
def test_backups_that_could_not_be_made_are_not_scheduled(
    environment: dict[str, str], passphrase: Path | None, bucket: str | None, tasks: set[str]
) -> None:
    """They would fail each hour, for all that is wrong is that they are not wanted."""
    own = {"backup_dir": Path("/srv/backups"), "backup_passphrase_file": passphrase, "backup_s3_uri": bucket}
    entries = celery_config(get_settings().model_copy(update=own))["beat_schedule"]
    found = {entry["task"].split(".")[2] for entry in entries.values() if entry["task"].startswith("tasks.backups.")}
    assert found == tasks


def test_every_entry_expires(environment: dict[str, str]) -> None:
    entries = celery_config(get_settings())["beat_schedule"]
    assert all(entry["options"]["expires"] > 0 for entry in entries.values())
