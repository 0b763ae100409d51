"""One child process: started so that it cannot outlive its owner, then signalled, awaited and started again."""

import os
import signal
import subprocess
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devstack.errors import StackError
from devstack.folder import MARK, Folder

STOP_SECONDS = 15.0
TAIL_LINES = 20

# A parent-death signal fires when the THREAD that started the child ends (prctl(2)). This thread lives as long as the
# owner, so that a service stays up though the thread that restarted it has ended.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="devstack-spawner")


class Process:
    """A program with its log in a stack's folder. It may be started again after it has ended."""

    name: str

    def __init__(self, name: str, folder: Folder) -> None:
        self.name = name
        self.folder = folder
        self.log = folder.log(name)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the latest start. Raise StackError before the first."""
        return self._started().pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def spawn(self, command: list[str], cwd: Path, environment: dict[str, str] | None = None) -> None:
        """Start a program in its own session, so that a Ctrl-C in the terminal reaches the owner alone, who stops it in order.

        It gets this process's environment or, where one is given, that one alone; the mark of its stack is in either.
        """
        if self.running:
            raise StackError(f"{self.name} is already running as process {self.pid}")
        with self.log.open("ab") as log:
            self._child = _spawner.submit(
                subprocess.Popen,
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                cwd=cwd,
                env={**(os.environ if environment is None else environment), MARK: str(self.folder.path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).result()

    def ended(self, seconds: float = 0) -> int | None:
        """Wait for the program to end. Return its exit status, negative for a signal, or None if it still runs."""
        try:
            return self._started().wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Ask the program to end, also while it is paused; `join` awaits it."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def join(self, seconds: float = STOP_SECONDS) -> None:
        """Wait for the program to end, and kill it if it does not."""
        if self._child is not None and self.ended(seconds) is None:
            self.kill()

    def stop(self) -> None:
        """End the program in good order."""
        self.terminate()
        self.join()

    def kill(self) -> None:
        """End the program as a power cut would end it: SIGKILL."""
        self._signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def pause(self) -> None:
        """Let the program hang until `resume`: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def failure(self) -> str | None:
        """Return, for a program that has ended, a sentence with the end of its log."""
        status = self.ended()
        return None if status is None else f"{self.name} ended with status {status}. {self.log_ends()}"

    def log_ends(self) -> str:
        """Return a sentence with the last lines of the log."""
        with self.log.open(errors="replace") as log:
            return "Its log ends:\n" + ("".join(deque(log, maxlen=TAIL_LINES)).rstrip() or "(empty)")

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._child is None:
            raise StackError(f"{self.name} was never started")
        return self._child

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and its children, if it is running."""
        if self.running:
            os.killpg(self.pid, number)
