"""A service of the stack: a process that answers on a port, and that restarts on the same port with the same data."""

import time
from abc import ABC, abstractmethod
from pathlib import Path

from devstack.errors import StackError
from devstack.folder import Folder
from devstack.ports import free_port
from devstack.process import Process

READY_SECONDS = 60.0
POLL_SECONDS = 0.03


class Service(Process, ABC):
    """A server on a loopback port that it keeps, with its data in the stack's folder."""

    def __init__(self, folder: Folder) -> None:
        super().__init__(self.name, folder)
        self.port = free_port()
        self.data = folder.path / self.name
        self._prepared = False

    @abstractmethod
    def command(self) -> list[str]:
        """Return the program and its arguments, for the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Return whether the service does its work now; one try, without waiting."""

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return the variables that point the workers at this service."""

    @property
    def working_folder(self) -> Path:
        return self.data

    def prepare(self) -> None:
        """Write the files that the first start needs and every restart finds."""
        self.data.mkdir(mode=0o700)

    def launch(self) -> None:
        """Start the program without waiting for it."""
        if not self._prepared:
            self.prepare()
            self._prepared = True
        self.spawn(self.command(), cwd=self.working_folder)

    def await_ready(self) -> None:
        """Wait until the service answers. Raise StackError, with the end of its log, if it ends or takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while not (self.running and self.answers()):
            if (status := self.ended(POLL_SECONDS)) is not None:
                raise StackError(f"{self.name} ended with status {status} at its start. {self.log_ends()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} did not answer within {READY_SECONDS:.0f} s. {self.log_ends()}")

    def start(self) -> None:
        """Start the program, after `stop` or `kill` on the same port with the same data, and wait until it answers."""
        self.launch()
        self.await_ready()

    def restart(self) -> None:
        """Stop the service if it runs, and start it."""
        self.stop()
        self.start()
