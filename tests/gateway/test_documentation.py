"""The examples of docs/api.md, as printed."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devstack.folder import PROJECT
from devstack.programs import ensure

from .conftest import Gateway, Queue

CLIENTS = PROJECT / "deploy/clients"
EXAMPLE = re.compile(r"<!-- tested: (\w+) -->\n```\w+\n(.*?)```", re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall((PROJECT / "docs/api.md").read_text()))


def run(name: str, command: list[str], gateway: Gateway, token: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run an example beside the clients, as a project that has copied them."""
    ensure(["tests"])
    for client in (CLIENTS / "node/chat_jobs.mjs", CLIENTS / "python/chat_jobs.py"):
        shutil.copy(client, folder)
    (folder / command[-1]).write_text(EXAMPLES[name])
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "GATEWAY": gateway.url, "TOKEN": token},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "command", "calls"),
    [
        ("curl", ["sh", "-e", "example"], 0),
        ("node", ["node", "example.mjs"], 2),
        ("python", [sys.executable, "example.py"], 2),
        ("celery", [sys.executable, "example.py"], 2),
    ],
)
def test_an_example_runs_as_it_is_printed(
    gateway: Gateway,
    token: str,
    notifications: Queue,
    attachments: Queue,
    tmp_path: Path,
    name: str,
    command: list[str],
    calls: int,
) -> None:
    done = run(name, command, gateway, token, tmp_path)
    assert (done.returncode, "sweep" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr
    assert notifications.calls() == [("tasks.notifications.drain", [])]
    assert attachments.calls() == [("tasks.attachments.scan", [12]), ("tasks.attachments.scan", [13])][:calls]


def test_a_withdrawal_is_asked_for_as_it_is_printed(gateway: Gateway, token: str, notifications: Queue, tmp_path: Path) -> None:
    done = run("withdrawal", ["sh", "-e", "example"], gateway, token, tmp_path)
    assert done.returncode == 0, done.stderr
    assert notifications.calls() == [("tasks.notifications.withdraw", [5, 1])]


@pytest.mark.parametrize(("name", "command"), [("node", ["node", "example.mjs"]), ("python", [sys.executable, "example.py"])])
def test_a_token_that_has_ended_ends_no_request_of_the_api_and_is_said(
    gateway: Gateway, tmp_path: Path, name: str, command: list[str]
) -> None:
    token = gateway.token(expires=datetime(2020, 1, 1, tzinfo=UTC))
    done = run(name, command, gateway, token, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the sweep will do it: 401: Send the header Authorization" in done.stderr


def test_the_types_for_typescript_declare_what_the_client_for_node_has() -> None:
    public = re.compile(r"^(?:export |export declare )?(?:class (\w+)|  (?!if|for|try)(\w+)\()", re.MULTILINE)
    code, types = ((CLIENTS / "node" / name).read_text() for name in ("chat_jobs.mjs", "chat_jobs.d.mts"))
    assert public.findall(code) == public.findall(types)
