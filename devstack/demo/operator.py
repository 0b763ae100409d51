"""The operator of the demo: `chat-workers` commands, in the environment of the Procfile's processes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from devstack.errors import StackError
from devstack.folder import PROJECT

COMMAND_SECONDS, WORK_SECONDS = 120, 120.0
T = TypeVar("T")


class Operator:
    """Runs commands and waits for what the workers make of them; `check` raises if one of these has ended."""

    def __init__(self, environment: dict[str, str], check: Callable[[], None]) -> None:
        self._environment = environment
        self._check = check

    def __call__(self, *arguments: str) -> Any:
        """Run `chat-workers` with these arguments; return what it reports. Raise StackError if it fails."""
        command = [str(Path(sys.executable).with_name("chat-workers")), *arguments, "--json"]
        command = ["timeout", str(COMMAND_SECONDS), *command]
        done = subprocess.run(command, cwd=PROJECT, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"chat-workers {' '.join(arguments)} failed:\n{done.stderr or done.stdout}")
        return json.loads(done.stdout)

    def wait(self, what: str, look: Callable[[], T]) -> T:
        """Return what `look` finds, once that is something. Raise StackError if it takes too long."""
        deadline = time.monotonic() + WORK_SECONDS
        while not (found := look()):
            self._check()
            if time.monotonic() > deadline:
                raise StackError(f"no worker has {what} within {WORK_SECONDS:.0f} s; see their logs")
            time.sleep(0.1)
        return found
