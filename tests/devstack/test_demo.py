"""The demo delivers, counts and says so; what it runs ends with it; and its count is not easily pleased."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from devstack.chat import load_chat
from devstack.demo.account import audit
from devstack.demo.screen import COLUMNS
from devstack.emulators.client import Emulator
from devstack.folder import DEFAULT_ROOT, PROJECT


def processes_of(stack: str) -> list[str]:
    """Return the processes that have a stack's folder in their arguments or environment."""
    folder, found = os.fsencode(DEFAULT_ROOT / stack), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile, or is another user's
        if folder in arguments or folder in environment:
            found.append(arguments.replace(b"\0", b" ").decode())
    return found


def figure(output: str, of: str) -> int:
    """Return the number that stands before the words `of`."""
    found = re.search(rf"^ *([\d,]+)  {re.escape(of)}$", output, re.MULTILINE)
    assert found, f"no figure of {of!r} in:\n{output}"
    return int(found[1].replace(",", ""))


@pytest.mark.timeout(900)
def test_the_demo_accounts_for_every_job_row_and_device_and_leaves_nothing() -> None:
    name = f"test-demo-{os.getpid()}"
    demo = subprocess.run(
        [sys.executable, "-m", "devstack", "demo", "--rows", "200", "--name", name],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    *lines, last = demo.stdout.splitlines()
    assert "OK: all 200 notifications are accounted for" in last
    assert [line for line in lines if len(line) > COLUMNS] == []
    assert figure(demo.stdout, "in all") == 200
    assert figure(demo.stdout, "served, says the database") == figure(demo.stdout, "served, says the emulator's own log") > 200
    lost = figure(demo.stdout, "lost, though the provider was down in the middle")
    assert (lost, figure(demo.stdout, "repeats")) == (0, 0)
    for said in (
        " hello.txt  is served: scanned and clean (scanned_for_virus 1, is_safe 1)",
        " eicar.zip  stays blocked: infected (scanned_for_virus 1, is_safe 0)",
        "photos.rar  stays blocked: this clamd cannot look into it (scanned_for_virus 0, is_safe 0)",
        "        28  typing indicators had expired and are gone; the other 12 stay",
        "       200  old notifications deleted by retention, as planned",
        "         3  backups, signed: a dump, its sealed archive, and that archive in the S3 stand-in",
    ):
        assert said in lines
    assert figure(demo.stdout, "rows dumped, and brought back as they were by a restore drill") > 500
    assert processes_of(name) == []
    assert not (DEFAULT_ROOT / name).exists()


def test_the_count_finds_devices_that_no_one_pushed_to_and_rows_that_no_one_settled(chat: Engine, emulator: Emulator) -> None:
    with chat.begin() as connection:
        load_chat(connection, users=20, conversations=40, notifications=50, quiet=0, bad_tokens=0)
        connection.execute(text("UPDATE chat_notifications SET delivery_status = 'SENT', is_sent = 1 WHERE id <= 30"))
    account = audit(chat, emulator)
    assert account.lost == account.served >= 30
    assert account.faults == [
        "20 rows are not settled that should be sent: 31, 32, 33, 34, 35, …",
        f"{account.lost} devices are served by the database's word, but the emulator never saw their push",
    ]
