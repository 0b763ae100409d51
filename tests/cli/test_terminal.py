"""A terminal obeys nothing that strangers wrote, wherever a command found it: each source, on a real terminal and as JSON."""

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from settings import get_settings
from tasks import pause as pausing
from tasks.retention import rules
from tasks.retention.policies import POLICIES
from tests.retention.rows import notifications, parents
from tests.terminal import open_terminal
from workers.cli import cli
from workers.operations import fleet, snapshot

# A title bar, C1's CSI, signs of direction, a forged line, and markup that closes what nothing opened.
HOSTILE = "\x1b]0;owned\x07\x9b2J\u202eevil-minded\u2066\nforged [/red] [bold]said\x7f"
SHOWN = "owned", "forged", "[/red]", "[bold]", "said"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Plant = Callable[[Engine, Redis, Path], object]


def sql(statement: str) -> Plant:
    def plant(chat: Engine, _redis: Redis, _folder: Path) -> None:
        with chat.begin() as connection:
            connection.execute(text(statement), {"hostile": HOSTILE})

    return plant


def failed_rows(chat: Engine, _redis: Redis, _folder: Path) -> None:
    parents(chat)
    with chat.begin() as connection:
        notifications(connection, range(1, 3), created="NOW()")
        connection.execute(
            text("UPDATE chat_notifications SET delivery_status = 'FAILED', error_message = :hostile"), {"hostile": HOSTILE}
        )


def pause(chat: Engine, _redis: Redis, _folder: Path) -> None:
    with chat.begin() as connection:
        pausing.pause(connection, ["retention:read_notifications"], HOSTILE, HOSTILE)


def manifest(_chat: Engine, _redis: Redis, folder: Path) -> None:
    found = {"kind": "daily", "name": HOSTILE, "created_at": "2026-01-01T00:00:00Z", "bytes": 1, "sha256": "0" * 64,
             "plain_bytes": 1, "milliseconds": 1}  # fmt: skip
    (folder / "backup_chat_20260101.sql.zst.manifest").write_text(json.dumps(found) + "\n")


def tokens(_chat: Engine, _redis: Redis, folder: Path) -> None:
    jobs = HOSTILE.replace("\n", "").replace(" ", "")
    (folder / "tokens").write_text(f"directus {'0' * 64} jobs={jobs}forged\n")
    (folder / "tokens").chmod(0o600)


BREAKER = sql("INSERT INTO worker_providers (provider, opened_at, reason) VALUES ('fcm', NOW(3), :hostile)")
ATTACHMENT = sql(
    "INSERT INTO worker_scans (attachment_id, verdict, reason, signature, scanned_at)"
    " VALUES (7, 'infected', :hostile, '', NOW(3))"
)
SOURCES: dict[str, tuple[Plant, str]] = {
    "a breaker's reason": (BREAKER, "notifications status"),
    "a breaker's reason among the troubles": (BREAKER, "status"),
    "a reason that rows wait for": (
        sql("INSERT INTO worker_deliveries (notification_id, due_at, reason) VALUES (1, NOW(3), LEFT(:hostile, 64))"),
        "notifications status",
    ),
    "an outcome's reason": (
        sql("INSERT INTO worker_delivery_counts VALUES (NOW(), 'fcm', 'default', 'unknown', LEFT(:hostile, 64), 1)"),
        "notifications status",
    ),
    "an error_message, to be played again": (failed_rows, "notifications replay"),
    "an error_message, shown": (failed_rows, "notifications show 1"),
    "a worker's name": (
        lambda _chat, redis, _folder: fleet.announce(redis, HOSTILE, {"queues": ["backups"]}),
        "status",
    ),
    "a failed backup's words": (
        sql("INSERT INTO worker_backup_runs (job, outcome, milliseconds, detail) VALUES ('daily', 'failed', 1, :hostile)"),
        "status",
    ),
    "who paused a policy": (pause, "retention policy list"),
    "who ran a policy": (
        sql(
            "INSERT INTO worker_retention_runs (policy, started_by, rule, cutoff, rows_done, batches)"
            " VALUES ('read_notifications', :hostile, '', NOW(), 0, 0)"
        ),
        "retention history",
    ),
    "a manifest": (manifest, "backups list"),
    "a manifest that is refused": (manifest, "backups restore --yes --into test_other backup_chat_20260101.sql.zst"),
    "a tokens file": (tokens, "gateway tokens"),
    "a scan's reason": (ATTACHMENT, "attachments list"),
    "a scan's record": (ATTACHMENT, "attachments show 7"),
}


@pytest.fixture(autouse=True)
def folder(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty BACKUP_DIR beside a tokens file."""
    assert environment
    for name, value in {
        "BACKUP_DIR": tmp_path, "GATEWAY_TOKENS_FILE": tmp_path / "tokens", "ATTACHMENTS_URL": "file:///srv/uploads",
        "TERM": "xterm-256color",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("BACKUP_S3_URI", raising=False)
    get_settings.cache_clear()
    snapshot._sources.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command on a terminal of 80 columns, and return all that it was told."""

    def run(*arguments: str) -> str:
        ours, its = open_terminal()
        told: list[bytes] = []

        def read() -> None:
            try:
                while chunk := os.read(ours, 4096):
                    told.append(chunk)
            except OSError:  # the other end is closed
                pass

        reader = threading.Thread(target=read)
        reader.start()
        with monkeypatch.context() as patch, os.fdopen(its, "w", encoding="utf-8") as stream:
            for name in ("stdout", "stderr"):
                patch.setattr(sys, name, stream)
            with pytest.raises(SystemExit):
                cli.main(list(arguments), "chat-workers")
        reader.join()
        os.close(ours)
        return b"".join(told).decode()

    return run


@pytest.mark.parametrize(("plant", "command"), SOURCES.values(), ids=SOURCES)
def test_a_terminal_is_shown_strangers_texts_and_obeys_none(
    chat: Engine, redis: Redis, folder: Path, terminal: Callable[..., str], plant: Plant, command: str
) -> None:
    plant(chat, redis, folder)

    told = terminal(*command.split())
    lines = COLOURS.sub("", told).replace("\r\n", "\n").split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    assert not any(line.startswith("forged") for line in lines)
    folded = "".join("".join(lines).split())
    assert [word for word in SHOWN if word not in folded] == []

    printed = terminal(*command.split(), "--json").replace("\r\n", "\n")
    assert [line for line in printed.split("\n") if not line.isprintable()] == []


WIDE = {"age": "18000d", "hours": "22-4", "rows_per_run": 100_000_000, "minutes_per_run": 120, "batch_rows": 10_000}


@pytest.mark.parametrize("command", ["retention policy list", "retention history", "schedule list", "status"])
def test_a_list_fits_the_terminal(chat: Engine, redis: Redis, terminal: Callable[..., str], command: str) -> None:
    with chat.begin() as connection:
        for policy in POLICIES.values():
            rules.change(connection, policy, WIDE | {"enabled": True})
            pausing.pause(connection, [f"retention:{policy.name}"], "an.operator@a-host-with-a-long-name.example.com", "")
    lines = COLOURS.sub("", terminal(*command.split())).split("\r\n")
    assert [line for line in lines if len(line) > 80] == []
