"""The programs under test as processes: started as an operator starts them, ended by signals; and waiting for their effects."""

import os
import signal
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import pytest

from devstack.folder import PROJECT

# Longer than a lease: a commit that a killed worker had already sent may outlive it.
WAIT_SECONDS = 180
STOP_SECONDS = 20
# For httpx where plain HTTP is spoken: each call would read all authorities of the system, for 25 ms of CPU.
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def wait_until(
    condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = WAIT_SECONDS, *, every: float = 0.05
) -> None:
    """Poll until `condition` holds; fail naming `what` was waited for, which a function may tell in the end."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain until {what if isinstance(what, str) else what()}")
        time.sleep(every)


def answers(url: str) -> bool:
    """Return whether a server answers there, and not with an error of its own."""
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2, verify=PLAIN).status_code < 500
    return False


def python(words: str) -> list[str]:
    """Return the command that runs a module of Python, such as `celery -A workers.app worker`."""
    return [sys.executable, "-m", *words.split()]


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a copy of this process, which ends with 0 unless `work` raises, and return its id.

    Whatever the copy meets, it must never go on with the tests.
    """
    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


class Process:
    """A program with its log, in a process group of its own. It may be started again after it has ended."""

    def __init__(
        self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path, *, folder: Path = PROJECT
    ) -> None:
        """`environment` is all that the program gets."""
        self.log = log
        self._command, self._environment, self._folder = command, environment, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        return self

    @property
    def pid(self) -> int:
        assert self._process, "it was never started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def children(self) -> list[int]:
        """The process ids of its children: none once it has ended."""
        with suppress(OSError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []

    @property
    def lines(self) -> str:
        """All that it has written so far."""
        return self.log.read_text()

    def said(self, words: str, times: int = 1) -> bool:
        return self.lines.count(words) >= times

    def wait_until(self, condition: Callable[[], bool], what: str, *, every: float = 0.05) -> None:
        """Poll until `condition` holds. Fail, with the end of the log, if the program ends first or it takes too long."""

        def holds() -> bool:
            if not self.runs:
                pytest.fail(f"the program ended before {what}")
            return condition()

        try:
            wait_until(holds, what, every=every)
        except pytest.fail.Exception as failed:
            pytest.fail(f"{failed}; its log ends:\n{self.lines[-5000:]}")

    def wait_ready(self) -> Self:
        """Wait until a worker says that it takes messages."""
        self.wait_until(lambda: self.said(" ready."), "the worker was ready")
        return self

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Return the exit status, which must come in time."""
        assert self._process, "it was never started"
        return self._process.wait(seconds)

    def send(self, number: signal.Signals) -> None:
        """Signal the program alone, not its children."""
        if self.runs:
            os.kill(self.pid, number)

    def send_all(self, number: signal.Signals) -> None:
        """Signal the program and its children at once, as honcho and systemd do."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self) -> int:
        """End it as a supervisor does; return its exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL the program and its children, as when the machine loses power."""
        if self._process:
            self.send_all(signal.SIGKILL)
            self._process.wait()


# The fixture `start`.
Start = Callable[..., Process]
