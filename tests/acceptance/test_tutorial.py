"""docs/tutorial.md, block by block, with a real worker."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, text

from devstack.folder import PROJECT
from tests.processes import Process, wait_until

BLOCK = re.compile(r"<!-- tested: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
BLOCKS = dict(BLOCK.findall((PROJECT / "docs/tutorial.md").read_text()))


def test_a_row_is_sent_a_paused_one_waits_and_goes_on(
    chat: Engine,
    environment: dict[str, str],
    load: Callable[[int], None],
    nudge: Callable[[], None],
    start_worker: Callable[..., Process],
) -> None:
    def run(name: str, row: str = "") -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        script = f"{BLOCKS[name]}\n{'echo $row' if name == 'row' else ''}"
        variables = {**os.environ, **environment, "PATH": path, "row": row}
        done = subprocess.run(
            ["bash", "-ec", script], cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def is_sent(row: str) -> bool:
        with chat.connect() as connection:
            statement = text("SELECT delivery_status FROM chat_notifications WHERE id = :row")
            return bool(connection.execute(statement, {"row": row}).scalar_one() == "SENT")

    start_worker()
    load(1)
    nudge()
    wait_until(lambda: is_sent("1"), "the demo's row was SENT")
    row = run("row")
    nudge()
    wait_until(lambda: is_sent(row), "it was SENT")
    assert "SENT" in run("show", row)

    run("pause")
    row = run("row")
    nudge()
    assert "PENDING" in run("show", row)
    assert "notifications pause" in run("resume")
    nudge()
    wait_until(lambda: is_sent(row), "it went on")
