"""The operators' commands: what they print, what they ask, and how they end."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

from db.engine import create_engine
from devstack.stack import Stack
from settings import get_settings
from tasks.backups.ledger import last_runs
from tasks.backups.manifest import SUFFIX
from tasks.backups.run import Backups
from tests.backups.conftest import checksums, quiet
from workers.cli import cli

Command = Callable[..., Result]


@pytest.fixture
def run(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`chat-workers backups …` in this environment."""
    assert backups.settings.backup_dir
    monkeypatch.setenv("BACKUP_DIR", str(backups.settings.backup_dir))
    monkeypatch.setenv("BACKUP_PASSPHRASE_FILE", str(backups.settings.backup_passphrase_file))

    def run(*arguments: str) -> Result:
        get_settings.cache_clear()
        return CliRunner().invoke(cli, ["backups", *arguments])

    yield run
    monkeypatch.undo()
    get_settings.cache_clear()


def test_create_says_what_was_made(run: Command, into: Path) -> None:
    made = run("create", "daily")
    assert made.exit_code == 0
    assert made.stdout.startswith("dumped backup_chat_")
    assert run("create", "daily", "--if-due").stdout == "nothing to do: the daily backup is not due\n"
    second = json.loads(run("create", "daily", "--json").stdout)
    assert (into / second["artefact"]).stat().st_size == second["bytes"]


def test_list_shows_them_and_fails_if_one_is_not_whole(run: Command, backups: Backups) -> None:
    name = backups.daily(quiet).artefact
    listed = json.loads(run("list", "--json").stdout)
    assert [entry["name"] for entry in listed["backups"]] == [name]
    assert listed["last_done"]["daily"]
    (backups.folder / name).write_bytes(b"")
    result = run("list")
    assert result.exit_code == 1
    assert f"{name} has 0 bytes where its manifest says" in result.stderr


@pytest.mark.parametrize("days", ["0", "30"])
def test_an_empty_list_says_what_shows_archives_behind_delete_markers(
    run: Command, stack: Stack, monkeypatch: pytest.MonkeyPatch, days: str
) -> None:
    name = f"stolen-{days}-{uuid4().hex[:12]}"
    bucket = boto3.resource("s3", endpoint_url=stack.s3.url).create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    monkeypatch.setenv("BACKUP_S3_URI", f"s3://{name}")
    monkeypatch.setenv("BACKUP_S3_LOCK_DAYS", days)
    for suffix in ("", SUFFIX):
        bucket.put_object(Key=f"daily/backup_chat_day_20260101.tar.enc{suffix}", Body=b"x")
    bucket.objects.delete()
    listed = run("list").stdout
    assert ("seen only with BACKUP_S3_LOCK_DAYS" in listed) == (days == "0")
    assert ("daily/backup_chat_day_20260101.tar.enc" in listed) == (days == "30")


def test_runs_that_are_dated_after_now_count_as_none_and_are_named(run: Command, backups: Backups) -> None:
    with backups.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO worker_backup_runs (job, tier, outcome, milliseconds, ended_at)"
                " VALUES ('drill', 'daily', 'done', 1, NOW(3) + INTERVAL 10 YEAR)"
            )
        )
    assert last_runs(backups.engine) == {}
    listed = run("list")
    assert listed.exit_code == 1
    assert "the run of drill in worker_backup_runs is dated after now" in listed.stderr


def test_show_says_what_a_dump_holds(run: Command, backups: Backups) -> None:
    made = backups.daily(quiet)
    assert run("show", made.artefact).stdout.startswith(f"{made.artefact}: ")
    assert json.loads(run("show", made.artefact, "--json").stdout)["tables"]["message_reactions"]["rows"] == 100
    assert run("show", "backup_chat_19990101.sql.zst").exit_code == 1


@pytest.mark.parametrize(
    "file", ["binlog.000001", "a$(touch pwned)`touch pwned`';touch pwned;'", "--result-file=pwned binlog.1"]
)
def test_what_is_to_be_pasted_into_a_shell_runs_nothing_of_a_manifest(
    run: Command, backups: Backups, tmp_path: Path, file: str
) -> None:
    name = backups.daily(quiet).artefact
    path = backups.folder / f"{name}{SUFFIX}"
    made = json.loads(path.read_bytes().partition(b"\n")[0])
    made |= {"database": "x;touch pwned", "binlog": {"file": file, "position": 4}}
    path.write_text(json.dumps(made) + "\n")
    place = run("show", name).stdout.partition("second:\n")[2]
    assert ("BINLOGS=" in place) == (file == "binlog.000001")
    subprocess.run(["bash", "-c", place], cwd=tmp_path, check=True, timeout=20)
    assert not (tmp_path / "pwned").exists()


def test_verify_names_the_damaged_one(run: Command, backups: Backups) -> None:
    name = backups.daily(quiet).artefact
    assert run("verify").stdout == f"{name}: as its manifest says\n"
    data = (backups.folder / name).read_bytes()
    (backups.folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    result = run("verify", "--json")
    assert result.exit_code == 1
    assert "SHA-256" in json.loads(result.stdout)[name]


def test_restore_makes_the_schema_and_says_what_it_lacks(run: Command, backups: Backups, other: Engine) -> None:
    name = backups.daily(quiet).artefact
    with other.connect() as connection:
        connection.execute(text("DROP DATABASE test_other"))
    other.dispose()
    result = run("restore", name, "--into", "test_other", "--push")
    assert result.exit_code == 0, result.output
    parents = result.stdout.index("- Bring back bids, shipments, users from their owner's backup of the dump's moment")
    assert parents < result.stdout.index("- Its rows are those of")  # a replay needs them
    assert "message_reads.reader_id (all)" in result.stdout
    assert "- Make the workers' tables: chat-workers db migrate" in result.stdout
    assert checksums(other) == checksums(backups.engine)


def test_restore_asks_before_it_replaces_rows(run: Command, backups: Backups) -> None:
    name = backups.daily(quiet).artefact
    with backups.engine.begin() as connection:
        connection.execute(text("UPDATE messages SET message_text = 'said since' WHERE id = 1"))
    result = run("restore", name)
    assert result.exit_code == 2
    assert re.search(r"messages +[0-9,]+ +is replaced", result.stderr)
    assert re.search(r"message_reads +[0-9,]+ +is replaced", result.stderr)
    assert "since 20" in result.stderr
    assert "--yes replaces these tables" in result.stderr
    with backups.engine.connect() as connection:
        assert connection.execute(text("SELECT message_text FROM messages WHERE id = 1")).scalar() == "said since"
    assert run("restore", name, "--tables", "messages", "--yes").exit_code == 0
    with backups.engine.connect() as connection:
        assert connection.execute(text("SELECT message_text FROM messages WHERE id = 1")).scalar() != "said since"


def test_restore_on_the_day_the_schema_itself_is_gone(
    run: Command, backups: Backups, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, before = backups.daily(quiet).artefact, checksums(backups.engine)
    engine = create_engine(stack.mariadb.url("test_gone"))
    monkeypatch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setattr("workers.cli.backups.get_engine", lambda: engine)
    listed = run("list")
    assert name in listed.stdout
    assert "the database cannot tell when each job was last done" in listed.stderr
    assert run("restore", name, "--push").exit_code == 0
    assert checksums(engine) == before
    engine.dispose()
    stack.mariadb.drop_database("test_gone")


def test_prune_shows_before_it_deletes(run: Command, backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKUP_S3_URI")
    name = backups.daily(quiet).artefact
    for day in range(1, 8):
        for suffix in ("", ".manifest"):
            content = (backups.folder / (name + suffix)).read_bytes()
            old = f"backup_chat_2020010{day}.sql.zst"
            (backups.folder / (old + suffix)).write_bytes(content.replace(name.encode(), old.encode()))
    monkeypatch.setenv("BACKUP_KEEP_DAILY", "7")
    assert run("prune").stdout.startswith("would delete daily backup_chat_20200101.sql.zst")
    assert json.loads(run("prune", "--yes", "--json").stdout)["daily"][0]["name"] == "backup_chat_20200101.sql.zst"
    assert run("prune").stdout == "nothing is past its keep\n"


def test_drill_says_what_it_proved(run: Command, backups: Backups) -> None:
    made = backups.daily(quiet)
    result = run("drill", "--from", "daily")
    said = f"{made.artefact} (daily) restores: {made.rows:,} rows came back as they were"
    assert result.stdout.startswith(said)
    assert said in run("list").stdout
    again = run("restore", made.artefact, "--into", "test_other", "--tables", "messages")
    assert re.search(f"It takes about .*: the drill of {made.artefact} restored [0-9,]+ rows a second", again.stderr)


def test_a_restore_that_is_stopped_says_how_to_go_on_and_what_stays_paused(run: Command, backups: Backups) -> None:
    name, before = backups.daily(quiet).artefact, checksums(backups.engine)
    with backups.engine.begin() as connection:
        connection.execute(text("RENAME TABLE message_reads TO message_reads_away"))
        connection.execute(text("CREATE VIEW message_reads AS SELECT 1 AS id"))
    result = run("restore", name, "--yes", "--push")
    assert result.exit_code == 1
    assert "messages; run it again, and it goes on from there" in result.stderr
    assert "Pushes, scans and retention stay paused until it is run again and done" in result.stderr
    with backups.engine.begin() as connection:
        connection.execute(text("DROP VIEW message_reads"))
        connection.execute(text("RENAME TABLE message_reads_away TO message_reads"))
    again = run("restore", name, "--yes", "--push")
    assert "it went on where an earlier one stopped" in again.stderr
    assert "- Look whether all is well: chat-workers doctor. Then start beat, and half a minute later the API." in again.stdout
    assert checksums(backups.engine) == before


@pytest.mark.parametrize(
    "arguments",
    [("restore", "x", "--tables", "users"), ("create", "yearly"), ("drill", "--from", "attic")],
    ids=["a table that no backup has", "an unknown tier", "an unknown source"],
)
def test_bad_usage_ends_with_2(run: Command, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("name", ["../../etc/passwd", "backup_chat_20200101.sql.zst"])
def test_a_name_that_is_no_backup_ends_with_1(run: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("BACKUP_S3_URI")
    assert run("restore", name, "--into", "test_other").exit_code == 1
