"""Policies of files: copies in quarantine and archives of retention go by their age, each on record before it is gone."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from settings import ConfigurationError, get_settings
from tasks.retention import ledger, rules
from tasks.retention.plan import plan
from tasks.retention.policies import POLICIES
from tasks.retention.run import RunFailedError, run_policy
from workers.cli import cli

QUARANTINE, ARCHIVES = POLICIES["quarantine"], POLICIES["archives"]
INFECTED, SHARED = "a" * 64, "b" * 64
DAY = 86_400


def written(path: Path, days: int) -> Path:
    """Make a file that is so many days old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


@pytest.fixture
def folders(chat: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of each kind, with something old and something new, and both policies enabled."""
    monkeypatch.setenv("ATTACHMENTS_QUARANTINE_URL", f"file://{tmp_path}/quarantine")
    monkeypatch.setenv("RETENTION_ARCHIVE_DIR", str(tmp_path / "archive"))
    get_settings.cache_clear()
    for name, days in ((f"{INFECTED}.infected", 181), (f"7-{SHARED}.infected", 181), (f"{SHARED}.infected", 1), ("notes", 900)):
        written(tmp_path / "quarantine" / name, days)
    for run, days in (("2025-01-01T010000Z-run1", 366), ("2026-01-01T010000Z-run2", 1)):
        written(tmp_path / "archive" / "read_notifications" / run / "000001.sql.gz", days)
    with chat.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO worker_scans (attachment_id, verdict, sha256, quarantine) VALUES (:id, 'infected', :sha, :where)"
            ),
            [
                {"id": id_, "sha": sha, "where": f"file://{tmp_path}/quarantine/{name}"}
                for id_, sha, name in (
                    (1, INFECTED, f"{INFECTED}.infected"),
                    (7, SHARED, f"7-{SHARED}.infected"),
                    (8, SHARED, f"{SHARED}.infected"),
                )
            ],
        )
        for policy in (QUARANTINE, ARCHIVES):
            rules.change(connection, policy, {"enabled": True})
    yield tmp_path
    get_settings.cache_clear()


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_old_files_are_planned_and_then_deleted_and_new_ones_and_others_stay(chat: Engine, folders: Path) -> None:
    assert [plan(chat, each, seconds=9).count.rows for each in (QUARANTINE, ARCHIVES)] == [2, 1]
    reports = [run_policy(chat, each, by="ann@host") for each in (QUARANTINE, ARCHIVES)]
    assert [(report.rows, report.why) for report in reports] == [(2, "finished"), (1, "finished")]
    assert left(folders) == [
        "archive/read_notifications/2026-01-01T010000Z-run2/000001.sql.gz",
        f"quarantine/{SHARED}.infected",
        "quarantine/notes",
    ]
    assert not (folders / "archive/read_notifications/2025-01-01T010000Z-run1").exists()
    with chat.connect() as connection:
        assert connection.execute(text("SELECT quarantine FROM worker_scans ORDER BY attachment_id")).scalars().all() == [
            "missing",
            "missing",
            f"file://{folders}/quarantine/{SHARED}.infected",
        ]
        assert {run["policy"]: run["rows_done"] for run in ledger.history(connection, None, 9)} == {
            "quarantine": 2,
            "archives": 1,
        }


def test_what_cannot_be_deleted_is_named_and_holds_no_other_up(chat: Engine, folders: Path) -> None:
    for name in ("0", "x"):
        (folder := folders / "quarantine" / f"{name}.infected").mkdir()
        os.utime(folder, (0, 0))
    with pytest.raises(RunFailedError, match=r"quarantine failed: .* Is a directory: '.*/[0x]\.infected'"):
        run_policy(chat, QUARANTINE, by="t")
    assert left(folders / "quarantine") == [f"{SHARED}.infected", "notes"]
    with chat.connect() as connection:
        assert ledger.history(connection, "quarantine", 1)[0]["rows_done"] == 2


def test_a_run_ends_between_two_files_and_the_next_does_the_rest(chat: Engine, folders: Path) -> None:
    with chat.begin() as connection:
        rules.change(connection, QUARANTINE, {"rows_per_run": 1})
    assert [run_policy(chat, QUARANTINE, by="t").rows for _ in range(3)] == [1, 1, 0]
    assert left(folders / "quarantine") == [f"{SHARED}.infected", "notes"]


@pytest.mark.usefixtures("folders")
def test_a_bucket_is_refused_with_the_word_for_what_deletes_there(chat: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACHMENTS_QUARANTINE_URL", "s3://quarantine/chat")
    get_settings.cache_clear()
    sentence = "ATTACHMENTS_QUARANTINE_URL names no folder; in a bucket, lifecycle rules delete what is old"
    with pytest.raises(ConfigurationError, match=sentence):
        run_policy(chat, QUARANTINE, by="t")
    assert plan(chat, QUARANTINE, seconds=9).why_not == sentence
    done = CliRunner().invoke(cli, ["retention", "policy", "set", "quarantine", "--enabled"])
    assert (done.exit_code, sentence in done.stderr) == (2, True)
