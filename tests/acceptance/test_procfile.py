"""The Procfile's processes against a schema that is not ours: the reference's SQL, word for word."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from db.migrate import newest_revision
from devstack.emulators.client import Emulator
from devstack.folder import PROJECT
from devstack.ports import free_port
from tests.db.test_models_reference import OTHER_TABLES, PARTIAL_INDEXES, REFERENCE
from tests.processes import Process, wait_until

BIN = Path(sys.executable).parent


@pytest.fixture
def foreign(environment: dict[str, str], engine: Engine, redis: Redis) -> dict[str, str]:
    """The environment with a database that holds the reference's schema, and a row inserted by hand."""
    with engine.begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        for statement in (*OTHER_TABLES, *REFERENCE):
            if statement not in PARTIAL_INDEXES:
                connection.exec_driver_sql(statement)
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
        for statement in (
            "INSERT INTO users (id) VALUES (2), (5)",
            "INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id) VALUES (1, 'c', 2, 5)",
            "INSERT INTO messages (id, message_id, conversation_id, sender_id) VALUES (450, 'm', 1, 2)",
            "INSERT INTO chat_notifications"
            " (id, conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens)"
            " VALUES (800, 1, 450, 5, 2, 'New message from John', 'When can you deliver?', '[\"token_abc\", \"token_def\"]')",
        ):
            connection.execute(text(statement))
    url = engine.url.render_as_string(hide_password=False)
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **environment, "DATABASE_URL": url, "PATH": path, "FLOWER_PORT": str(free_port())}


@pytest.fixture
def command(foreign: dict[str, str]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(arguments, env=foreign, cwd=PROJECT, capture_output=True, text=True, timeout=180, check=False)

    return run


@pytest.fixture
def honcho(foreign: dict[str, str], tmp_path: Path) -> Iterator[Process]:
    process = Process([BIN / "honcho", "start", "notifications", "beat"], foreign, tmp_path / "honcho.log")
    yield process
    process.kill()


def test_a_schema_made_by_others_is_checked_and_migrated(command: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    before = command("chat-workers", "db", "check")
    assert before.returncode == 1
    assert before.stdout == f"worker tables are at nothing, not {newest_revision()}; run: chat-workers db migrate\n"
    assert command("chat-workers", "db", "migrate").returncode == 0
    assert command("chat-workers", "db", "check").returncode == 0
    assert command("chat-workers", "db", "create").returncode == 1  # it has the shared tables already


def test_beat_and_a_worker_drain_a_row_that_nobody_nudged(
    command: Callable[..., "subprocess.CompletedProcess[str]"],
    engine: Engine,
    emulator: Emulator,
    honcho: Process,
) -> None:
    assert command("chat-workers", "db", "migrate").returncode == 0
    honcho.start()

    def sent() -> bool:
        with engine.connect() as connection:
            return bool(connection.execute(text("SELECT delivery_status = 'SENT' FROM chat_notifications")).scalar_one())

    wait_until(sent, "the row was sent")
    assert sorted(message.token for message in emulator.accepted()) == ["token_abc", "token_def"]
    node = f"notifications@{gethostname()}"
    registered = command("celery", "-A", "workers.app", "inspect", "--timeout", "20", "--destination", node, "registered")
    assert "tasks.notifications.drain" in registered.stdout
    assert "tasks.notifications.retry_failed" in registered.stdout
    honcho.stop()
