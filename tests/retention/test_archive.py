"""Archive before delete: no row goes that no file holds, and the stock client puts back what a file holds, as it was."""

import gzip
import os
import re
import subprocess
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from sqlalchemy import Engine, text

from db.batches.target import Target
from db.batches.throttle import Throttle
from db.batches.walk import Limits, walk
from db.locks import hold
from settings import ConfigurationError, get_settings
from tasks.retention import rules
from tasks.retention.archive import SUFFIX, Archive
from tasks.retention.policies import POLICIES
from tasks.retention.run import RunFailedError, run_policy
from tests.retention.rows import ids, notifications, parents

POLICY = POLICIES["read_notifications"]
TARGET = cast(Target, POLICY.target)
OLD = "NOW() - INTERVAL 91 DAY"
CHAPTER = (Path(__file__).parents[2] / "docs" / "retention.md").read_text().partition("## Archives")[2]
NAMES, LOAD = re.findall(r"```sh\n(.*?)```", CHAPTER, re.DOTALL)


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


@pytest.fixture
def account(archived: Engine, tmp_path: Path) -> Path:
    """The option file of the stock client."""
    file, url = tmp_path / "my.cnf", archived.url
    file.touch(mode=0o600)
    file.write_text(f"[client]\nhost={url.host}\nport={url.port}\nuser={url.username}\npassword={url.password}\n")
    return file


def load(archive: Path, account: Path) -> list[str]:
    """Run the block of docs/retention.md; return the server's errors and gzip's."""
    names = f'ARCHIVE={archive}\nCLIENT="mariadb --defaults-extra-file={account}"\nDATABASE=test_chat\n'
    assert re.findall(r"^(\w+)=", NAMES, re.MULTILINE) == re.findall(r"^(\w+)=", names, re.MULTILINE)
    done = subprocess.run(["bash", "-uc", names + LOAD], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "gzip"))]


def test_what_was_deleted_comes_back_as_it_was(archived: Engine, folder: Path, account: Path) -> None:
    before = rows_of(archived)
    assert run_policy(archived, POLICY, by="t").rows == 300
    assert rows_of(archived) == []
    files = [gzip.decompress(file.read_bytes()).count(b"INSERT") for file in sorted(folder.rglob(f"*{SUFFIX}"))]
    assert files == [50, 100, 120, 30]  # the first is small, for its rows may be megabytes each
    assert load(folder, account) == []
    assert rows_of(archived) == before


@pytest.mark.skipif(os.environ.get("DEVSTACK_DATABASE") == "mysql", reason="MariaDB's alone: MySQL refuses such bytes")
def test_half_a_pair_of_surrogates_is_archived_as_it_is(archived: Engine, folder: Path, account: Path) -> None:
    with archived.begin() as connection:
        connection.execute(text("UPDATE chat_notifications SET title = CONVERT(X'EDA080' USING utf8mb4) WHERE id = 100"))
    assert run_policy(archived, POLICY, by="t").rows == 300
    assert load(folder, account) == []
    with archived.connect() as connection:
        assert connection.execute(text("SELECT HEX(title) FROM chat_notifications WHERE id = 100")).scalar() == "EDA080"


@pytest.mark.parametrize(
    ("harm", "error", "refused", "then"),
    [
        ("DELETE FROM messages", "ERROR 1452", 300, 0),
        ("INSERT INTO chat_notifications (id, conversation_id, message_id, recipient_id, sender_id, title, body)"
         " SELECT 7, 1, 1, 2, 1, 'new', 'new'", "ERROR 1062", 1, 300),
        ("CREATE TRIGGER refuses BEFORE INSERT ON chat_notifications FOR EACH ROW"
         " IF NEW.id = 7 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF", "ERROR 1644", 1, 299),
    ],
    ids=["its message is gone", "it is there", "a trigger"],
)  # fmt: skip
def test_each_row_that_is_refused_is_named_and_the_others_come_back(
    archived: Engine, folder: Path, account: Path, harm: str, error: str, refused: int, then: int
) -> None:
    run_policy(archived, POLICY, by="t")
    with archived.begin() as connection:
        connection.execute(text(harm))
    try:
        complaints = load(folder, account)
    finally:
        with archived.begin() as connection:
            connection.execute(text("DROP TRIGGER IF EXISTS refuses"))
    assert [line[: len(error)] for line in complaints] == [error] * refused
    assert len(rows_of(archived)) == then


@pytest.fixture
def scratch(chat: Engine) -> Iterator[Engine]:
    """A chat in which a test may make the table worker_test."""
    yield chat
    with chat.begin() as connection:
        connection.execute(text("DROP TABLE worker_test"))


def test_rows_come_back_though_the_table_has_a_new_column_and_a_check(scratch: Engine, folder: Path, account: Path) -> None:
    with scratch.begin() as connection:
        connection.execute(text("CREATE TABLE worker_test (id INT PRIMARY KEY, what TEXT)"))
        connection.execute(text("INSERT INTO worker_test VALUES (1, 'a'), (2, 'b'), (3, 'c')"))
    Archive(scratch, replace(POLICY, target=Target("worker_test", "1")), 1).keep([1, 2, 3])
    with scratch.begin() as connection:
        connection.execute(text("DELETE FROM worker_test"))
        connection.execute(text("ALTER TABLE worker_test ADD COLUMN more INT NOT NULL, ADD CHECK (id <> 2)"))
    assert len(load(folder, account)) == 1
    with scratch.begin() as connection:
        assert list(map(tuple, connection.execute(text("SELECT * FROM worker_test")))) == [(1, "a", 0), (3, "c", 0)]


def test_a_column_may_have_any_name(scratch: Engine, folder: Path, account: Path) -> None:
    with scratch.begin() as connection:
        connection.execute(text(r"CREATE TABLE worker_test (id INT PRIMARY KEY, `100%s %(x)s \:x {0} ``% é` INT)"))
        connection.execute(text("INSERT INTO worker_test VALUES (1, 5), (2, NULL)"))
    archive = Archive(scratch, replace(POLICY, target=Target("worker_test", "1")), 1)
    archive.keep([1, 2])
    with scratch.begin() as connection:
        assert archive.unchanged(connection, [1, 2]) == [1, 2]
        connection.execute(text("DELETE FROM worker_test"))
    assert load(folder, account) == []
    with scratch.begin() as connection:
        assert list(map(tuple, connection.execute(text("SELECT * FROM worker_test")))) == [(1, 5), (2, None)]


# A type of column, and values that Python, a client or a rounding might change.
TYPES = {
    "TINYINT": "-128", "BIGINT UNSIGNED": "18446744073709551615", "INT(6) ZEROFILL": "42", "BOOLEAN": "TRUE",
    "DECIMAL(65,30)": "-12345678901234567890123456789012345.000000000000000000000000000001",
    "FLOAT": "1.1754943e-38 + 0", "FLOAT(7,4)": "123.4567", "DOUBLE": "0.1 + 0.2e0", "DOUBLE(10,2)": "1.1", "REAL": "-1.7e308",
    "BIT(1)": "b'1'", "BIT(64)": "b'1000000000000000000000000000000000000000000000000000000000000001'",
    "DATE": "'0000-00-00'", "DATETIME(6)": "'9999-12-31 23:59:59.999999'", "TIMESTAMP(3) NULL": "'2026-03-29 02:30:00.123'",
    "TIME(6)": "'-838:59:58.999999'", "TIME": "'100:00:00'", "YEAR": "1901",
    "CHAR(9)": "'it''s \\\\ '", "VARCHAR(90)": "CONCAT('🚚 %s :x \r\n;', CHAR(0), CHAR(26), CHAR(9), '\n-- \\\\')",
    "VARCHAR(9) CHARACTER SET latin1": "'é€'", "VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin": "'Ä'",
    "TEXT": "REPEAT('ab\n', 20000)", "ENUM('a','b,''c')": "'b,''c'", "SET('x','y','z')": "'x,z'",
    "BINARY(4)": "X'00FF'", "VARBINARY(9)": "X'0D0A2700'", "BLOB": "''", "LONGBLOB": "REPEAT(X'FF00', 50000)",
    "JSON": """'{"a": [1.5, null, "\\\\u0000 🚚"], "b": 0.1}'""", "POINT": "ST_GeomFromText('POINT(0.1 -2)')",
    "GEOMETRY": "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')",
}  # fmt: skip
MARIADB_TYPES = {"INET6": "'2001:db8::1'", "UUID": "UUID()"}


def test_every_type_of_column_comes_back_to_the_bit(scratch: Engine, folder: Path, account: Path) -> None:
    types = TYPES | (MARIADB_TYPES if scratch.dialect.is_mariadb else {})  # type: ignore[attr-defined]
    columns = ", ".join(f"`column {n}` {kind}" for n, kind in enumerate(types))
    names = ", ".join(f"`column {n}`" for n in range(len(types)))
    state = ("CHECKSUM TABLE worker_test", f"SELECT HEX(CONCAT_WS('|', {names})) FROM worker_test")
    with scratch.connect() as connection:
        connection.exec_driver_sql("SET sql_mode = ''")
        connection.exec_driver_sql(
            f"CREATE TABLE worker_test (id INT PRIMARY KEY, made INT AS (id + 1), kept INT AS (id * 2) STORED, {columns})"
        )
        values = ", ".join(types.values()).replace("%", "%%")
        connection.exec_driver_sql(f"INSERT INTO worker_test (id, {names}) VALUES (0, {values})")
        connection.exec_driver_sql("INSERT INTO worker_test (id) VALUES (-1)")
        before = [connection.exec_driver_sql(each).all() for each in state]
        connection.commit()
        connection.invalidate()  # with its mode
    Archive(scratch, replace(POLICY, target=Target("worker_test", "1")), 1).keep([-1, 0])
    with scratch.begin() as connection:
        connection.execute(text("DELETE FROM worker_test"))
    assert load(folder, account) == []
    with scratch.begin() as connection:
        assert [connection.exec_driver_sql(each).all() for each in state] == before


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("LONGBLOB", "REPEAT('x', @@max_allowed_packet * 0.6)"),
        ("LONGTEXT", "REPEAT('''', @@max_allowed_packet * 0.6)"),
        ("JSON", "JSON_ARRAY(REPEAT(_utf8mb4 0x01, @@max_allowed_packet DIV 6))"),
    ],
    ids=["bytes", "text", "json"],
)
def test_a_row_too_long_to_be_written_as_sql_stays_and_holds_no_other_up(
    scratch: Engine, folder: Path, kind: str, value: str
) -> None:
    """It is no NULL in the archive either, nor the empty text that MySQL gives for a JSON."""
    with scratch.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE worker_test (id INT PRIMARY KEY, what {kind})")
        connection.exec_driver_sql("INSERT INTO worker_test VALUES (1, '[1]'), (3, NULL)")
        connection.exec_driver_sql(f"INSERT INTO worker_test VALUES (2, {value})")
    archive = Archive(scratch, replace(POLICY, target=Target("worker_test", "1")), 1)
    archive.keep([1, 2, 3])
    with scratch.begin() as connection:
        assert archive.unchanged(connection, [1, 2, 3]) == [1, 3]
    [file] = folder.rglob("*.gz")
    assert gzip.decompress(file.read_bytes()).count(b"INSERT") == 2


def test_a_file_belongs_to_its_owner_alone_and_leaves_nothing_half_written(archived: Engine, folder: Path) -> None:
    run_policy(archived, POLICY, by="t")
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    assert not list(folder.rglob("*.partial"))


@pytest.mark.usefixtures("folder")
def test_rows_of_megabytes_go_one_by_one_and_fill_no_memory(archived: Engine) -> None:
    with archived.begin() as connection:
        connection.execute(
            text("UPDATE chat_notifications SET body = '', device_tokens = JSON_QUOTE(REPEAT('x', 1000000)) LIMIT 30")
        )
    archive = Archive(archived, POLICY, 1)
    tracemalloc.start()
    archive.keep(range(1, 31))
    with archived.begin() as connection:
        assert archive.unchanged(connection, range(1, 31)) == [*range(1, 31)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20_000_000  # of 30 MB, which were held four times over


@pytest.mark.usefixtures("folder")
def test_a_row_that_changes_after_it_was_archived_stays(archived: Engine) -> None:
    archive = Archive(archived, POLICY, 1)
    archive.keep([1, 2, 3])
    with archived.begin() as connection:
        connection.execute(text("UPDATE chat_notifications SET title = 'renamed' WHERE id = 2"))
        connection.execute(text("DELETE FROM chat_notifications WHERE id = 3"))
        assert archive.unchanged(connection, [1, 2, 3]) == [1]


def test_of_a_row_that_was_archived_twice_the_later_state_comes_back(archived: Engine, folder: Path, account: Path) -> None:
    archive = Archive(archived, POLICY, 1)
    archive.keep([1])
    with archived.begin() as connection:
        connection.execute(text("UPDATE chat_notifications SET title = 'renamed' WHERE id = 1"))
    archive.keep([1])
    with archived.begin() as connection:
        connection.execute(text("DELETE FROM chat_notifications"))
    (complaint,) = load(folder, account)
    assert complaint.startswith("ERROR 1062")
    assert [row.title for row in rows_of(archived)] == ["renamed"]


@pytest.mark.usefixtures("folder")
def test_all_rows_of_a_key_must_be_as_they_were_archived(chat: Engine) -> None:
    with chat.begin() as connection:
        for reason in ("a", "b", "c"):
            connection.execute(
                text(f"INSERT INTO worker_delivery_counts VALUES ('2025-01-01', 'fcm', 'default', 'sent', '{reason}', 1)")
            )
    archive = Archive(chat, POLICIES["delivery_counts"], 1)
    minute = datetime.fromisoformat("2025-01-01")
    archive.keep([minute])
    with chat.begin() as connection:
        assert archive.unchanged(connection, [minute]) == [minute]
        connection.execute(text("UPDATE worker_delivery_counts SET devices = 2 WHERE reason = 'a'"))
        assert archive.unchanged(connection, [minute]) == []


def test_an_archived_row_that_the_api_holds_waits_for_the_next_run(archived: Engine, folder: Path, account: Path) -> None:
    with archived.connect() as api:
        api.execute(text("UPDATE chat_notifications SET title = 'held' WHERE id = 7"))
        report = run_policy(archived, POLICY, by="t")
        assert (report.rows, report.skipped, ids(archived, "chat_notifications")) == (299, 1, [7])
        api.commit()
    assert run_policy(archived, POLICY, by="t").rows == 1
    load(folder, account)
    assert (len(rows_of(archived)), rows_of(archived)[6].title) == (300, "held")


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


def test_of_a_file_that_was_damaged_nothing_is_loaded_and_the_others_are(archived: Engine, folder: Path, account: Path) -> None:
    run_policy(archived, POLICY, by="t")
    file = sorted(folder.rglob(f"*{SUFFIX}"))[0]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert any(str(file) in line for line in load(folder, account))
    assert ids(archived, "chat_notifications") == list(range(51, 301))


@pytest.fixture
def bucket(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the stack's bucket, where nothing is archived yet."""
    monkeypatch.setenv("RETENTION_ARCHIVE_S3_URI", "s3://backups/retention")
    get_settings.cache_clear()
    client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"])
    for item in client.list_objects_v2(Bucket="backups").get("Contents", []):
        client.delete_object(Bucket="backups", Key=item["Key"])
    return client


def test_each_file_is_in_s3_too_before_its_rows_go(archived: Engine, folder: Path, bucket: Any) -> None:
    run_policy(archived, POLICY, by="t")
    keys = [item["Key"] for item in bucket.list_objects_v2(Bucket="backups")["Contents"]]
    assert sorted(keys) == sorted(f"retention/{file.relative_to(folder)}" for file in folder.rglob(f"*{SUFFIX}"))
    body = bucket.get_object(Bucket="backups", Key=keys[0])["Body"].read()
    assert body == (folder / keys[0].removeprefix("retention/")).read_bytes()


@pytest.mark.usefixtures("folder", "bucket")
def test_nothing_is_deleted_while_s3_takes_nothing(archived: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETENTION_ARCHIVE_S3_URI", "s3://no-such-bucket/retention")
    get_settings.cache_clear()
    with pytest.raises(RunFailedError, match=r"s3://no-such-bucket/retention/read_notifications/\S* did not reach S3: "):
        run_policy(archived, POLICY, by="t")
    assert len(ids(archived, "chat_notifications")) == 300


@pytest.mark.usefixtures("folder")
def test_no_transaction_is_open_while_rows_are_stored(archived: Engine) -> None:
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

    keeper = Watching(archived, POLICY, 1)
    with hold(archived, "t") as lock:
        walk(archived, TARGET, "2038-01-01 00:00:00", Limits(10**6, 60, 100, 5), lock, Throttle(10**6, 9), keeper=keeper)
    assert seen == [3, 0, 0, 0]
