"""The processes that a push passes through, each started as an operator starts it and ended with its children."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from devstack.folder import PROJECT

WAIT_SECONDS = 120
STOP_SECONDS = 20


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Poll until `condition` holds; fail naming `what` was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain until {what}")
        time.sleep(0.05)


class Program:
    """A program with its log, in a session of its own; it may be started again after it was stopped."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.log = folder / f"{name}.log"
        self._name, self._command, self._environment, self._folder = name, command, environment, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ready: Callable[[], bool]) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        process = self._process

        def up() -> bool:
            if process.poll() is not None:
                pytest.fail(f"{self._name} ended at its start: {self.log.read_text()[-3000:]}")
            return ready()

        wait_until(up, f"{self._name} was ready")

    def says(self, words: bytes) -> bool:
        return words in self.log.read_bytes()

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def chat_workers(environment: dict[str, str], *arguments: str) -> str:
    """Return what the command prints. Fail if it does."""
    command = [sys.executable, "-c", "from workers.cli import main; main()", *arguments]
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
