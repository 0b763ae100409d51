"""The tasks look whether they are due, fit the broker's limits, and give way when the worker stops."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

import beat_schedule
from settings import ConfigurationError, get_settings
from tasks import shutdown
from tasks.backups import dump, folder, task
from tasks.backups.errors import BackupError
from tasks.backups.run import Backups
from tests.backups.conftest import quiet
from tests.backups.test_rotate import put
from workers.celery_config import LONGEST_TIME_LIMIT_SECONDS, celery_config

TASKS = (task.daily, task.weekly, task.monthly, task.drill)


@pytest.fixture
def configured(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backups]:
    """The backups' settings as the environment of this process."""
    monkeypatch.setenv("BACKUP_DIR", str(backups.settings.backup_dir))
    monkeypatch.setenv("BACKUP_PASSPHRASE_FILE", str(backups.settings.backup_passphrase_file))
    monkeypatch.setenv("BACKUP_S3_URI", str(backups.settings.backup_s3_uri))
    get_settings.cache_clear()
    yield backups
    monkeypatch.undo()
    get_settings.cache_clear()


def artefacts(backups: Backups) -> list[str]:
    return folder.names(backups.folder, "daily") + folder.names(backups.folder, "weekly")


def test_each_task_makes_what_is_due_and_then_nothing(configured: Backups) -> None:
    for _ in range(2):
        task.daily()
        task.weekly()
        task.monthly()
    assert len(artefacts(configured)) == 2
    assert len(configured.bucket.shipped()) == 1
    task.drill()


@pytest.mark.parametrize(
    ("hours_ago", "every", "made_hours_ago", "due"),
    [
        (0, "1d", 1, True),
        (0, "1d", 0, False),
        (-1, "1d", 22, False),
        (-1, "1d", 24, True),
        (3, "1h", 1, True),
        (3, "2h", 1, False),
        (3, "2h", 2, True),
    ],
)
def test_a_dump_is_due_at_its_hour_and_as_often_as_set_from_then_on(
    backups: Backups, hours_ago: int, every: str, made_hours_ago: int, due: bool
) -> None:
    """Of the day that began at BACKUP_HOUR; hours are told apart from the middle of the one that is now."""
    now = dump.now(backups.engine)
    hour = (now - timedelta(hours=hours_ago)).hour
    made = now.replace(minute=30, second=0) - timedelta(hours=made_hours_ago)
    made = min(made, now)
    put(backups.folder, f"backup_chat_{made:%Y%m%d}.sql.zst", signed=True, made_at=made.isoformat())
    settings = backups.settings.model_copy(update={"backup_hour": hour, "backup_every": every})
    assert bool(replace(backups, settings=settings).daily(quiet).artefact) is due


def test_a_dump_that_is_dated_after_now_keeps_none_from_being_made(configured: Backups) -> None:
    name = dump.today(configured.engine).strftime("backup_chat_%Y%m%d.sql.zst")
    put(configured.folder, name, made_at="9998-12-31T00:00:00Z")
    assert configured.daily(quiet).artefact
    assert not configured.daily(quiet).artefact


def test_a_drill_is_due_once_a_day(configured: Backups) -> None:
    task.daily()
    assert task.drill().startswith("drilled")
    assert task.drill() == "not due"


@pytest.mark.parametrize(("day", "due"), [(4, False), (9, False), (10, True)])
def test_an_archive_is_due_seven_days_after_the_last(backups: Backups, day: int, due: bool) -> None:
    put(backups.folder, "backup_chat_week_20260103.tar.enc", signed=True)
    put(backups.folder, f"backup_chat_202601{day:02}.sql.zst", signed=True)
    run = backups.weekly(quiet)
    assert bool(run.artefact) is due
    if due:
        assert folder.day_of(run.artefact) == date(2026, 1, day)


def test_an_archive_holds_the_seven_days_that_end_with_the_newest_dump(backups: Backups) -> None:
    for day in range(1, 11):
        put(backups.folder, f"backup_chat_202601{day:02}.sql.zst", signed=True)
    archive = folder.load(backups.folder, backups.weekly(quiet).artefact)
    held = [member.name for member in archive.signed.manifest.members if member.name.endswith(".zst")]
    assert held == [f"backup_chat_202601{day:02}.sql.zst" for day in range(4, 11)]


def test_a_day_whose_only_dump_is_cut_off_is_not_passed_over(backups: Backups) -> None:
    for name in ("backup_chat_20260101.sql.zst", "backup_chat_20260102.sql.zst", "backup_chat_20260103.sql.zst"):
        put(backups.folder, name, signed=True)
    (backups.folder / "backup_chat_20260102.sql.zst").write_bytes(b"")
    with pytest.raises(BackupError, match=r"the week is not sealed, since backup_chat_20260102.sql.zst has 0 bytes"):
        backups.weekly(quiet)
    put(backups.folder, "backup_chat_20260102_120000.sql.zst", signed=True)
    archive = folder.load(backups.folder, backups.weekly(quiet).artefact)
    assert "backup_chat_20260102.sql.zst" not in {member.name for member in archive.signed.manifest.members}
    assert len(archive.signed.manifest.members) == 6


def test_a_worker_that_stops_leaves_the_dump_to_the_next_tick(configured: Backups) -> None:
    shutdown.request_stop()
    try:
        task.daily()
    finally:
        shutdown.forget()
    assert artefacts(configured) == []
    task.daily()
    assert len(artefacts(configured)) == 1


def test_a_task_that_finds_another_at_work_is_put_off(configured: Backups) -> None:
    with folder.locked(configured.folder):
        task.daily()
    assert artefacts(configured) == []


def test_a_damaged_dump_of_today_is_made_again(configured: Backups) -> None:
    task.daily()
    damaged = configured.folder / artefacts(configured)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    task.daily()
    assert len(artefacts(configured)) == 2
    assert damaged.stat().st_size == 100


def test_what_is_not_set_up_fails_loudly(chat: Engine, into: Path) -> None:
    nothing = get_settings().model_copy(update={"backup_dir": None, "backup_passphrase_file": None, "backup_s3_uri": None})
    with pytest.raises(ConfigurationError, match="BACKUP_DIR is not set"):
        Backups(chat, nothing).daily(quiet)
    folder_only = nothing.model_copy(update={"backup_dir": into})
    with pytest.raises(ConfigurationError, match="BACKUP_PASSPHRASE_FILE is not set"):
        Backups(chat, folder_only).weekly(quiet)
    assert Backups(chat, folder_only).daily(quiet).artefact


def test_no_task_may_run_longer_than_the_broker_waits() -> None:
    assert {entry.time_limit for entry in TASKS} == {LONGEST_TIME_LIMIT_SECONDS}


def test_each_is_scheduled_and_goes_to_the_backups_queue(environment: dict[str, str]) -> None:
    assert environment
    scheduled = {entry["task"]: entry for entry in beat_schedule.BEAT_SCHEDULE.values()}
    assert all(scheduled[entry.name]["options"]["expires"] > 0 for entry in TASKS)
    assert celery_config(get_settings())["task_routes"]["tasks.backups.*"] == {"queue": "backups"}
