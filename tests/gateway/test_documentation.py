"""The examples of docs/api.md, as printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.folder import PROJECT
from devstack.programs import ensure

from .conftest import Gateway, Queue

CLIENTS = PROJECT / "deploy/clients"
EXAMPLE = re.compile(r"<!-- tested: (\w+) -->\n```\w+\n(.*?)```", re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall((PROJECT / "docs/api.md").read_text()))


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
    ensure(["tests"])
    for client in (CLIENTS / "node/chat_jobs.mjs", CLIENTS / "python/chat_jobs.py"):
        shutil.copy(client, tmp_path)
    (tmp_path / command[-1]).write_text(EXAMPLES[name])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "GATEWAY": gateway.url, "TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "sweep" in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr
    assert notifications.calls() == [("tasks.notifications.drain", [])]
    assert attachments.calls() == [("tasks.attachments.scan", [12]), ("tasks.attachments.scan", [13])][:calls]
