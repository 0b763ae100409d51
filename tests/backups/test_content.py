"""What people wrote is in no log, on no stderr and in no table of the workers, whatever a dump meets on its way back."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from redis import Redis
from sqlalchemy import Engine, text

from devstack.stack import Stack
from tasks.backups import folder, manifest, restore
from tasks.backups.client import SHELLS, find_client, server_family
from tasks.backups.errors import BackupError
from tasks.backups.ledger import Run, recorded
from tasks.backups.run import Backups
from tests.backups.conftest import FEW_ITERATIONS, PASSPHRASE, quiet
from tests.processes import Process, python

MARKER = "harbour"
BODY = f"{MARKER} at nine\n{MARKER} 'bring \\' \"both\"\n{MARKER}"


def refused_dump(backups: Backups) -> folder.Backup:
    """Make a dump in which the messages stand twice, signed as if it were ours, which no server takes."""
    with backups.engine.begin() as connection:
        connection.execute(
            text("UPDATE messages SET message_text = :body, message_id = CONCAT(id, :id)"), {"body": BODY, "id": MARKER}
        )
        connection.execute(text("UPDATE chat_notifications SET title = :body, body = :body"), {"body": BODY})
    made = folder.load(backups.folder, backups.daily(quiet).artefact)
    plain = zstandard.ZstdDecompressor().stream_reader(made.path.read_bytes()).read()
    start = plain.index(b"INSERT INTO `messages`")
    end = plain.index(b";\n", start) + 2
    statement = plain[start:end]
    made.path.write_bytes(zstandard.ZstdCompressor().compress(plain[:end] + statement + plain[end:]))
    changed = made.signed.manifest.model_copy(
        update={
            "bytes": made.path.stat().st_size,
            "sha256": folder.file_sha256(made.path, quiet),
            "plain_bytes": len(plain) + len(statement),
        }
    )
    made.path.with_name(made.name + manifest.SUFFIX).write_bytes(manifest.compose(changed, PASSPHRASE, FEW_ITERATIONS))
    return folder.load(backups.folder, made.name)


def told(engine: Engine) -> Iterator[str]:
    """Return all that stands in the workers' tables of a schema."""
    with engine.connect() as connection:
        for table in connection.execute(text("SHOW TABLES LIKE 'worker\\_%'")).scalars().all():
            yield from (f"{table}: {row}" for row in connection.execute(text(f"SELECT * FROM {table}")))


def test_a_refused_restore_and_drill_leave_nobodys_words_anywhere(
    backups: Backups, other: Engine, stack: Stack, redis: Redis, tmp_path: Path
) -> None:
    name = refused_dump(backups).name
    own = {"BACKUP_DIR": str(backups.folder), "BACKUP_PASSPHRASE_FILE": str(backups.settings.backup_passphrase_file)}
    environment = {**os.environ, **own, "LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json"}
    options = ["--into", str(other.url.database), "--yes", "--json"]
    command = [sys.executable, "-c", "from workers.cli import main; main()", "backups", "restore", name, *options]
    restoring = Process(command, environment, tmp_path / "restore.log").start()
    assert restoring.wait(60) == 1
    assert "ERROR 1062" in restoring.lines
    worker = Process(
        python("celery -A workers.app worker -Q backups -c 1 -l DEBUG"), environment, tmp_path / "worker.log"
    ).start()
    try:
        worker.wait_ready()
        Process(
            [sys.executable, "-c", "from tasks.backups.task import drill; from workers.app import app; drill.delay()"],
            environment,
            tmp_path / "send.log",
        ).start().wait(60)
        worker.wait_until(lambda: any("failed" in row for row in told(backups.engine)), "the drill failed")
        worker.wait_until(lambda: worker.said("backup failed"), "the failure was logged")
    finally:
        worker.stop()
    assert [row for row in told(backups.engine) if "1062" in row]
    logs = [*tmp_path.glob("*.log"), *stack.mariadb.data.parent.glob("logs/*.log")]
    assert len(logs) >= 6
    assert not [path for path in logs if MARKER in path.read_text(errors="replace")]
    assert not [row for engine in (backups.engine, other) for row in told(engine) if MARKER in row]
    assert not [key for key in redis.scan_iter() if MARKER.encode() in (redis.dump(key) or b"")]


@pytest.mark.skipif(os.environ.get("DEVSTACK_DATABASE") != "mysql", reason="MySQL's alone: MariaDB keeps a JSON as text")
def test_a_json_that_mysql_shows_as_an_empty_text_is_named_and_is_in_no_dump(backups: Backups) -> None:
    """A control character has one byte there, and six in its text."""
    with backups.engine.begin() as connection:
        row = connection.execute(text("SELECT MAX(id) FROM messages")).scalar_one()
        value = "JSON_ARRAY(REPEAT(_utf8mb4 0x01, @@max_allowed_packet DIV 2))"
        connection.execute(text(f"UPDATE messages SET metadata = {value} WHERE id = {row}"))
    with pytest.raises(
        BackupError, match=f"^row {row} of messages holds a JSON whose text is longer than .*max_allowed_packet"
    ):
        backups.daily(quiet)
    assert folder.names(backups.folder, "daily") == []


# A dump's rows meet what the table has become since, or a trigger of the API's that says what it was given.
REFUSALS = {
    "1062": "INSERT INTO kept VALUES (1, '{0}'), (2, '{0}');",
    "1064": "INSERT INTO kept VALUES (3, '{0}' {1});",
    "1366": "INSERT INTO kept VALUES ('{0}', 'x');",
    "1406": "INSERT INTO kept VALUES (4, REPEAT('{0}', 100));",
    "1644": "CREATE TRIGGER loud BEFORE INSERT ON kept FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{0}';\n"
    "INSERT INTO kept VALUES (5, 'x');",
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_shows_the_servers_reason_and_nobodys_message(backups: Backups, other: Engine, code: str) -> None:
    family = server_family(other)
    body = BODY.replace("\\", "\\\\").replace("'", "\\'")
    statement = REFUSALS[code].format(body, MARKER)
    table = "DROP TABLE IF EXISTS kept; CREATE TABLE kept (id INT PRIMARY KEY, body VARCHAR(90), UNIQUE (body));\n"
    with pytest.raises(BackupError) as refused, recorded(backups.engine, backups.settings, Run("restore")):
        restore.load_text(other, find_client(SHELLS[family]), [table.encode(), statement.encode() + b"\n"], "a dump")
    assert f"ERROR {code}" in str(refused.value)
    said = str(refused.value) + json.dumps([*told(backups.engine)])
    assert MARKER not in said
