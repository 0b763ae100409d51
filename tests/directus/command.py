"""The operator's command, run as a process."""

import subprocess
import sys

from devstack.folder import PROJECT


def chat_workers(environment: dict[str, str], *arguments: str) -> str:
    """Return what the command prints. Fail if it does."""
    command = [sys.executable, "-c", "from workers.cli import main; main()", *arguments]
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
