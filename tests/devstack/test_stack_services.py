"""Each service of the stack comes up, does its work, and comes back as it was after a SIGKILL."""

import base64
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import boto3
import pymysql
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.engine import make_url

from db.engine import Connection
from devstack.errors import StackError
from devstack.stack import Stack

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
# Made with `zip --encrypt`; it holds one line of text.
ENCRYPTED_ZIP = base64.b64decode(
    "UEsDBAoACQAAAImidl3xwIUIIQAAABUAAAAIABwAbm90ZS50eHRVVAkAA4FOA2uBTgNrdXgLAAEEAAAAAAQAAAAAnEJ6DvwXBs+k"
    "ZxUk1BBxKXBYUklufJsz1/Jx2F3fWBzuUEsHCPHAhQghAAAAFQAAAFBLAQIeAwoACQAAAImidl3xwIUIIQAAABUAAAAIABgAAAAA"
    "AAEAAACkgQAAAABub3RlLnR4dFVUBQADgU4Da3V4CwABBAAAAAAEAAAAAFBLBQYAAAAAAQABAE4AAABzAAAAAAA="
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack("services", ["mariadb", "redis", "clamd", "s3"], root=tmp_path_factory.mktemp("stacks")) as stack:
        yield stack


def connect(url: str) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    parts = make_url(url)
    assert parts.host is not None
    return Connection(
        host=parts.host,
        port=parts.port or 0,
        user=parts.username,
        password=parts.password or "",
        database=parts.database,
        autocommit=True,
    )


def scan(address: Path, content: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as clamd:
        clamd.settimeout(20)
        clamd.connect(str(address))
        # Above the limit clamd answers and closes while content is still on its way.
        with suppress(BrokenPipeError):
            clamd.sendall(b"zINSTREAM\0" + struct.pack(">I", len(content)) + content + struct.pack(">I", 0))
        return clamd.recv(1024).decode().rstrip("\0")


def test_the_environment_names_the_variables_of_the_services_that_run_and_no_others(stack: Stack) -> None:
    assert stack.environment.keys() == {
        "DATABASE_URL",
        "CELERY_BROKER_URL",
        "CLAMD_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "BACKUP_S3_URI",
    }


def test_a_service_that_was_not_chosen_is_said_to_be_missing(stack: Stack) -> None:
    with pytest.raises(StackError, match="'services' runs without fcm"):
        _ = stack.fcm


def test_mariadb_keeps_what_was_committed_before_a_kill(stack: Stack) -> None:
    url = stack.mariadb.create_database("kept")
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE notes (body TEXT)")
        cursor.execute("INSERT INTO notes VALUES ('zażółć 🧭')")

    stack.mariadb.kill()
    with pytest.raises(pymysql.OperationalError):
        connect(url)
    stack.mariadb.restart()

    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT body FROM notes")
        assert cursor.fetchall() == (("zażółć 🧭",),)


def test_a_database_is_made_anew_and_in_utf8mb4(stack: Stack) -> None:
    for _ in range(2):
        with connect(stack.mariadb.create_database("fresh")) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE first_time (id INT)")
            cursor.execute("SELECT @@character_set_database")
            assert cursor.fetchall() == (("utf8mb4",),)


def test_the_workers_account_has_no_rights_outside_its_databases(stack: Stack) -> None:
    with (
        connect(stack.environment["DATABASE_URL"]) as connection,
        connection.cursor() as cursor,
        pytest.raises(pymysql.OperationalError, match="denied"),
    ):
        cursor.execute("SELECT * FROM mysql.user")


@pytest.mark.parametrize("user", ["root", "", "chat_workers"])
def test_no_one_enters_mariadb_over_tcp_without_a_password(stack: Stack, user: str) -> None:
    with pytest.raises(pymysql.OperationalError, match=r"Access denied|not allowed"):
        pymysql.connect(host="127.0.0.1", port=stack.mariadb.port, user=user, password="")


def test_a_new_mariadb_leaves_the_temporary_tables_of_others_alone(tmp_path: Path) -> None:
    theirs = Path(tempfile.gettempdir()) / f"#sql-temptable-{os.getpid():x}-1-1.MAI"
    theirs.touch()
    try:
        with Stack("another", ["mariadb"], root=tmp_path):
            assert theirs.exists()
    finally:
        theirs.unlink(missing_ok=True)


def test_redis_keeps_what_it_acknowledged_before_a_kill(stack: Stack) -> None:
    with Redis.from_url(stack.redis.url) as client:
        client.lpush("queue", "message")

    stack.redis.kill()
    with Redis.from_url(stack.redis.url) as client, pytest.raises(RedisConnectionError):
        client.ping()
    stack.redis.start()

    with Redis.from_url(stack.redis.url) as client:
        assert client.lrange("queue", 0, -1) == [b"message"]
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_paused_service_hangs_until_it_is_resumed(stack: Stack) -> None:
    with Redis.from_url(stack.redis.url, socket_timeout=2, retry=None) as client:
        client.ping()
        stack.redis.pause()
        with pytest.raises(RedisTimeoutError):
            client.ping()
        stack.redis.resume()
        assert client.ping()


def test_a_paused_service_can_be_restarted(stack: Stack) -> None:
    before = stack.redis.pid
    stack.redis.pause()
    stack.redis.restart()
    assert stack.redis.pid != before


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (b"hello", "stream: OK"),
        (EICAR, "stream: Eicar-Test-Signature.UNOFFICIAL FOUND"),
        (ENCRYPTED_ZIP, "stream: Heuristics.Encrypted.Zip FOUND"),
        (bytes(26 * 2**20), "INSTREAM size limit exceeded. ERROR"),
    ],
    ids=["clean", "EICAR", "encrypted zip", "above the limit"],
)
def test_clamd_tells_clean_from_infected_and_unscannable(stack: Stack, content: bytes, verdict: str) -> None:
    assert scan(stack.clamd.socket, content) == verdict


def test_clamd_answers_on_its_port_too(stack: Stack) -> None:
    host, _, port = stack.clamd.tcp_url.removeprefix("tcp://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as clamd:
        clamd.sendall(b"zVERSION\0")
        assert clamd.recv(100).startswith(b"ClamAV ")


def test_s3_takes_what_the_environment_points_at_and_has_its_bucket_after_a_kill(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in stack.environment.items():
        monkeypatch.setenv(variable, value)
    s3 = boto3.client("s3")
    s3.put_object(Bucket="backups", Key="chat/monthly", Body=b"sealed")
    assert s3.get_object(Bucket="backups", Key="chat/monthly")["Body"].read() == b"sealed"

    stack.s3.kill()
    stack.s3.start()

    assert s3.list_objects_v2(Bucket="backups")["KeyCount"] == 0


def test_an_account_file_with_the_passwords_is_for_its_owner_alone(stack: Stack) -> None:
    assert (stack.mariadb.data / "accounts.sql").stat().st_mode & 0o077 == 0


def test_a_service_restarted_by_a_passing_thread_outlives_the_thread(stack: Stack) -> None:
    thread = Thread(target=stack.redis.restart)
    thread.start()
    thread.join()
    assert stack.redis.ended(0.3) is None
    assert stack.redis.answers()


def test_watching_the_stack_ends_when_a_service_dies(stack: Stack) -> None:
    stack.redis.kill()
    with pytest.raises(StackError, match="redis ended with status -9"):
        stack.watch()
    stack.redis.start()


def test_a_service_that_cannot_start_says_so_with_the_end_of_its_log(stack: Stack) -> None:
    append_only = stack.redis.data / "appendonlydir"
    moved = append_only.rename(stack.redis.data / "elsewhere")
    append_only.write_text("in the way")
    try:
        with pytest.raises(StackError, match=r"redis ended with status 1 at its start\. Its log ends:\n(.|\n)*AOF"):
            stack.redis.restart()
    finally:
        append_only.unlink()
        moved.rename(append_only)
        stack.redis.start()
