"""Archive before delete: no row goes that no file holds, and what a file holds can be put back as it was."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from sqlalchemy import Engine, text

from db.batches.place import start
from db.batches.throttle import Throttle
from db.batches.walk import Limits, walk
from db.locks import hold
from settings import ConfigurationError, get_settings
from tasks.retention import rules, ship
from tasks.retention.archive import Archive, ArchiveError, files_of, read_file
from tasks.retention.policies import POLICIES
from tasks.retention.restore import policies_of, restore
from tasks.retention.run import RunFailedError, run_policy
from tests.retention.rows import ids, notification, notifications, parents

POLICY = POLICIES["read_notifications"]
OLD = "NOW() - INTERVAL 91 DAY"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where archives go. A batch may last so long that none is made smaller on a slow machine."""
    monkeypatch.setenv("RETENTION_ARCHIVE_DIR", str(tmp_path / "archive"))
    monkeypatch.setenv("BATCHES_SECONDS", "5")
    get_settings.cache_clear()
    yield tmp_path / "archive"
    get_settings.cache_clear()


@pytest.fixture
def archived(chat: Engine) -> Engine:
    """A chat with 300 old notifications, each a little different, whose policy archives them."""
    parents(chat)
    with chat.begin() as connection:
        notifications(connection, range(1, 301), created=OLD)
        connection.execute(
            text(
                "UPDATE chat_notifications SET device_tokens = JSON_ARRAY(id, '🚚'),"
                " error_message = IF(id % 2, NULL, 'so: \\\\n\"'), sent_at = created_at + INTERVAL id SECOND"
            )
        )
        rules.change(connection, POLICY, {"archive": True, "batch_rows": 120})
    return chat


def rows_of(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM chat_notifications ORDER BY id")).all())


def test_what_was_deleted_comes_back_as_it_was(archived: Engine, folder: Path) -> None:
    before = rows_of(archived)
    assert run_policy(archived, POLICY, by="t").rows == 300
    assert rows_of(archived) == []
    done = restore(archived, folder)
    assert (done.files, done.restored, done.already_there, done.refused) == (3, 300, 0, {})
    assert rows_of(archived) == before


def test_restoring_twice_adds_nothing(archived: Engine, folder: Path) -> None:
    run_policy(archived, POLICY, by="t")
    restore(archived, folder)
    again = restore(archived, folder)
    assert (again.restored, again.already_there) == (0, 300)


def test_rows_whose_conversation_is_gone_are_refused_and_counted(archived: Engine, folder: Path) -> None:
    run_policy(archived, POLICY, by="t")
    with archived.begin() as connection:
        connection.execute(text("DELETE FROM messages"))
    done = restore(archived, folder)
    assert (done.restored, dict(done.refused)) == (0, {"what it refers to is gone": 300})


def test_a_file_belongs_to_its_owner_alone_and_leaves_nothing_half_written(archived: Engine, folder: Path) -> None:
    run_policy(archived, POLICY, by="t")
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    assert not list(folder.rglob("*.partial"))


def test_a_row_that_changes_after_it_was_archived_stays(archived: Engine, folder: Path) -> None:
    archive = Archive(archived, POLICY, 1, folder, None)
    archive.keep([1, 2, 3])
    with archived.begin() as connection:
        connection.execute(text("UPDATE chat_notifications SET title = 'renamed' WHERE id = 2"))
        connection.execute(text("DELETE FROM chat_notifications WHERE id = 3"))
        assert archive.unchanged(connection, [1, 2, 3]) == [1]


def test_of_a_row_that_was_archived_twice_the_later_state_comes_back(archived: Engine, folder: Path) -> None:
    archive = Archive(archived, POLICY, 1, folder, None)
    archive.keep([1])
    with archived.begin() as connection:
        connection.execute(text("UPDATE chat_notifications SET title = 'renamed' WHERE id = 1"))
    archive.keep([1])
    with archived.begin() as connection:
        connection.execute(text("DELETE FROM chat_notifications"))
    restore(archived, folder)
    assert [row.title for row in rows_of(archived)] == ["renamed"]


def test_of_a_row_that_two_folders_hold_the_later_state_comes_back_in_whatever_order_they_are_named(
    archived: Engine, folder: Path
) -> None:
    places = [folder / "b", folder / "a"]  # the later one has the earlier name
    for place, title in zip(places, ("first", "second"), strict=True):
        with archived.begin() as connection:
            connection.execute(text(f"UPDATE chat_notifications SET title = '{title}' WHERE id = 1"))
        Archive(archived, POLICY, 1, place, None).keep([1])
    for order in (places, places[::-1]):
        with archived.begin() as connection:
            connection.execute(text("DELETE FROM chat_notifications"))
        assert restore(archived, *order).files == 2
        assert [row.title for row in rows_of(archived)] == ["second"]


def test_all_rows_of_a_key_must_be_as_they_were_archived(chat: Engine, folder: Path) -> None:
    with chat.begin() as connection:
        for reason in ("a", "b", "c"):
            connection.execute(text(f"INSERT INTO worker_delivery_counts VALUES ('2025-01-01', 'fcm', 'sent', '{reason}', 1)"))
    archive = Archive(chat, POLICIES["delivery_counts"], 1, folder, None)
    minute = datetime.fromisoformat("2025-01-01")
    archive.keep([minute])
    with chat.begin() as connection:
        assert archive.unchanged(connection, [minute]) == [minute]
        connection.execute(text("UPDATE worker_delivery_counts SET devices = 2 WHERE reason = 'a'"))
        assert archive.unchanged(connection, [minute]) == []


def test_an_archived_row_that_the_api_holds_waits_for_the_next_run(archived: Engine, folder: Path) -> None:
    with archived.connect() as api:
        api.execute(text("UPDATE chat_notifications SET title = 'held' WHERE id = 7"))
        report = run_policy(archived, POLICY, by="t")
        assert (report.rows, report.skipped, ids(archived, "chat_notifications")) == (299, 1, [7])
        api.commit()
    assert run_policy(archived, POLICY, by="t").rows == 1
    assert restore(archived, folder).restored == 300
    assert rows_of(archived)[6].title == "held"


FULL_DISK = """
import resource, sys
from pathlib import Path
from tasks.retention.archive import write_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_file(Path(sys.argv[1]), "t", ["c"], [bytes(str(hash(n)), "ascii") for n in range(100_000)])
except OSError:
    sys.exit(3)
"""


def test_a_disk_that_is_full_is_left_no_fuller(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path / "000001.jsonl.gz")], check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (3, [])


def test_nothing_is_deleted_when_the_disk_takes_nothing(archived: Engine, folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    with pytest.raises(RunFailedError, match=r"read_notifications failed: archive .* cannot be written: "):
        run_policy(archived, POLICY, by="t")
    assert len(ids(archived, "chat_notifications")) == 300


def test_nothing_is_deleted_without_a_folder_to_archive_into(archived: Engine) -> None:
    with pytest.raises(ConfigurationError, match=r"^RETENTION_ARCHIVE_DIR is not set"):
        run_policy(archived, POLICY, by="t")
    assert len(ids(archived, "chat_notifications")) == 300


@pytest.mark.parametrize("harm", ["cut short", "altered", "not ours"])
def test_a_file_that_is_not_whole_is_not_restored(archived: Engine, folder: Path, harm: str) -> None:
    run_policy(archived, POLICY, by="t")
    file = files_of(folder)[0]
    content = gzip.decompress(file.read_bytes())
    damaged = {
        "cut short": content[: len(content) // 2],
        "altered": content.replace(b"Hi", b"Ho", 1),
        "not ours": b"hello\n",
    }[harm]
    file.write_bytes(gzip.compress(damaged))
    with pytest.raises(ArchiveError, match="cut short"):
        restore(archived, file)
    assert ids(archived, "chat_notifications") == []


def test_a_file_names_the_policy_that_would_delete_its_rows_again(archived: Engine, folder: Path) -> None:
    run_policy(archived, POLICY, by="t")
    assert policies_of([folder]) == {"read_notifications"}
    table, columns, rows = read_file(files_of(folder)[0])
    assert (table, columns[0], len(rows)) == ("chat_notifications", "id", 60)


@pytest.fixture
def bucket(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the stack's bucket, where nothing is archived yet."""
    monkeypatch.setenv("RETENTION_ARCHIVE_S3_URI", "s3://backups/retention")
    get_settings.cache_clear()
    ship._client.cache_clear()
    client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"])
    for item in client.list_objects_v2(Bucket="backups").get("Contents", []):
        client.delete_object(Bucket="backups", Key=item["Key"])
    return client


def test_each_file_is_in_s3_too_before_its_rows_go(archived: Engine, folder: Path, bucket: Any) -> None:
    run_policy(archived, POLICY, by="t")
    keys = [item["Key"] for item in bucket.list_objects_v2(Bucket="backups")["Contents"]]
    assert sorted(keys) == sorted(f"retention/{file.relative_to(folder)}" for file in files_of(folder))
    body = bucket.get_object(Bucket="backups", Key=keys[0])["Body"].read()
    assert body == (folder / keys[0].removeprefix("retention/")).read_bytes()


def test_a_slow_upload_is_heard_of_again_and_again(tmp_path: Path, bucket: Any) -> None:
    """Or the server would take the run, whose lock is silent meanwhile, for dead."""
    file = tmp_path / "file"
    file.write_bytes(b"rows")
    heard: list[None] = []
    ship.upload(file, "s3://backups/retention/file", lambda: heard.append(None))
    assert heard
    assert bucket.get_object(Bucket="backups", Key="retention/file")["Body"].read() == b"rows"


@pytest.mark.usefixtures("folder", "bucket")
def test_nothing_is_deleted_while_s3_takes_nothing(archived: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETENTION_ARCHIVE_S3_URI", "s3://no-such-bucket/retention")
    get_settings.cache_clear()
    with pytest.raises(RunFailedError, match="did not reach s3://no-such-bucket/retention/read_notifications/"):
        run_policy(archived, POLICY, by="t")
    assert len(ids(archived, "chat_notifications")) == 300


def test_no_transaction_is_open_while_rows_are_stored(archived: Engine, folder: Path) -> None:
    """A lock held across a slow disk or S3 would hold the API's writes."""
    seen: list[int] = []

    class Watching(Archive):
        def keep(self, keys: Any) -> None:
            super().keep(keys)
            with archived.connect() as connection:
                seen.append(
                    connection.execute(
                        text("SELECT COUNT(*) FROM chat_notifications WHERE id IN (1, 2, 3) FOR UPDATE NOWAIT")
                    ).scalar_one()
                )

    keeper = Watching(archived, POLICY, 1, folder, None)
    with hold(archived, "t") as lock:
        place = start(archived, POLICY.target, "2038-01-01 00:00:00")
        walk(archived, POLICY.target, place, Limits(10**6, 60, 100, 5), lock, Throttle(10**6, 9), keeper=keeper)
    assert seen == [3, 0, 0]


def test_bytes_and_null_survive(archived: Engine, folder: Path) -> None:
    with archived.begin() as connection:
        notification(connection, 900, created=OLD)
        connection.execute(text("ALTER TABLE worker_delivery_history ADD COLUMN raw VARBINARY(8) NULL"))
        connection.execute(
            text(
                "INSERT INTO worker_delivery_history (notification_id, settled_at, status, raw)"
                " VALUES (1, NOW() - INTERVAL 1 YEAR, 'X', X'00ff80'), (2, NOW() - INTERVAL 1 YEAR, 'X', NULL)"
            )
        )
    policy = POLICIES["delivery_history"]
    with archived.begin() as connection:
        rules.change(connection, policy, {"archive": True})
    run_policy(archived, policy, by="t")
    restore(archived, folder)
    with archived.begin() as connection:
        found = connection.execute(text("SELECT raw FROM worker_delivery_history ORDER BY notification_id")).scalars().all()
    with archived.begin() as connection:
        connection.execute(text("ALTER TABLE worker_delivery_history DROP COLUMN raw"))
    assert found == [b"\x00\xff\x80", None]
