"""The audit: each command that changes something leaves who, what, with which arguments and what it came to."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from devstack.folder import PROJECT
from tasks.audit import who
from tests.processes import Process
from tests.trickle import GREETING, trickling
from workers.cli import cli
from workers.cli.group import Command

# Those that only look, or make what the audit is kept in.
LOOK = {
    "alerts", "attachments check", "attachments list", "attachments show", "attachments status", "audit list", "backups list",
    "backups show", "backups verify", "db check", "db create", "db migrate", "doctor", "gateway tokens",
    "messages list", "notifications preview", "notifications show", "notifications status", "ping", "retention history",
    "retention plan", "retention policy list", "schedule list", "status",
}  # fmt: skip


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if found := command.get_command(context, name):
            yield from commands(found, (*path, name))


def run(*arguments: str) -> None:
    CliRunner().invoke(cli, arguments)


def entries() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(CliRunner().invoke(cli, ["audit", "list", "--json"]).stdout)
    return listed


def test_an_operator_who_acts_as_the_workers_user_stands_there_by_his_own_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOGNAME", "chat-workers")
    monkeypatch.setenv("SUDO_USER", "ann")
    assert who().startswith("ann@")
    for program, does in (("systemctl", "true"), ("systemd-run", 'printf "%s\\n" "$@"')):
        (tmp_path / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / program).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    called = subprocess.run(
        ["deploy/as", "backups", "true"], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert {"SUDO_USER=ann", "--description", "chat-workers as backups"} <= {*called.stdout.splitlines()}


def test_every_command_that_does_not_only_look_is_audited() -> None:
    audited = {name for name, command in commands(cli) if isinstance(command, Command) and command.changes}
    assert {name for name, _ in commands(cli)} - audited == LOOK


def test_an_order_stands_there_with_its_arguments_and_its_outcome(chat: Engine) -> None:
    run("notifications", "pause", "--provider", "fcm", "--why", "wrong link")
    run("notifications", "cancel", "--sender", "7", "--why", "wrong link")
    run("notifications", "cancel", "--sender", "7", "--why", "wrong link", "--yes")
    run("attachments", "rescan", "4711")
    said = [(each["who"], each["what"], each["arguments"], each["outcome"]) for each in entries()]
    assert said == [
        (who(), "attachments rescan", {"attachment_ids": [4711]}, "failed: 1 of them do not exist: due 0"),
        (
            who(),
            "notifications cancel",
            {"sender_id": 7, "why": "wrong link", "yes": True},
            "done: found 0, cancelled 0, held 0, ids 0",
        ),
        (who(), "notifications pause", {"providers": ["fcm"], "why": "wrong link"}, "done: paused 1"),
    ]
    assert "sender_id 7" in CliRunner().invoke(cli, ["audit", "list", "--what", "notifications"]).stdout


def test_odd_arguments_stop_no_order_and_its_giver_has_one_name(chat: Engine) -> None:
    huge = CliRunner().invoke(cli, ["attachments", "rescan", "99999999999999999999"])
    assert "1 of them do not exist" in huge.output
    odd = CliRunner().invoke(cli, ["notifications", "pause", "--why", "\udcff"])
    assert (odd.exit_code, odd.output) == (0, "paused all until: chat-workers notifications resume\n")
    run("attachments", "release", "1", "--reason", "harmless")
    assert [(each["who"], each["arguments"]) for each in entries()] == [
        (who(), {"attachment_id": 1, "reason": "harmless"}),
        (who(), {"why": "'\\udcff'"}),
        (who(), {"attachment_ids": "(99999999999999999999,)"}),
    ]


def test_no_secret_stands_there(chat: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKENS_FILE", str(tmp_path / "tokens"))
    from settings import get_settings

    get_settings.cache_clear()
    token = json.loads(CliRunner().invoke(cli, ["gateway", "token", "directus", "--json"]).stdout)["token"]
    run("notifications", "test", "--provider", "fcm", "--token", "the-phone")
    monkeypatch.undo()
    get_settings.cache_clear()
    written = json.dumps(entries(), default=str)
    assert "directus" in written
    assert token not in written
    assert "the-phone" not in written


def test_an_order_whose_process_was_killed_stands_there_without_an_outcome(chat: Engine, tmp_path: Path) -> None:
    with chat.connect() as holder:
        holder.execute(text("INSERT INTO worker_pauses (what, paused_by) VALUES ('', 'ana@ops')"))
        program = "from workers.cli import main; main()"
        command = [sys.executable, "-c", program, "notifications", "pause"]
        process = Process(command, os.environ, tmp_path / "pause.log").start()
        process.wait_until(lambda: bool(entries()), "it was entered")
        process.send(signal.SIGKILL)
        process.wait()
    assert [each["outcome"] for each in entries()] == [""]
    assert "runs, or was killed" in CliRunner().invoke(cli, ["audit", "list"]).stdout


@pytest.mark.parametrize("way", ["gone", "a byte at a time"])
def test_a_database_that_is_away_stops_no_order_that_does_not_need_it(
    chat: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    from db.engine import get_engine
    from settings import get_settings

    monkeypatch.setattr("tasks.audit.SECONDS", 0.5)
    with trickling(GREETING) as server:
        port = 1 if way == "gone" else server.address[1]
        monkeypatch.setenv("GATEWAY_TOKENS_FILE", str(tmp_path / "tokens"))
        monkeypatch.setenv("DATABASE_URL", f"mysql+pymysql://a:b@127.0.0.1:{port}/x")
        for cache in (get_settings, get_engine):
            cache.cache_clear()
        done = CliRunner().invoke(cli, ["gateway", "token", "directus"])
    monkeypatch.undo()
    for cache in (get_settings, get_engine):
        cache.cache_clear()
    assert done.exit_code == 0
    assert "not in the audit" in done.output
