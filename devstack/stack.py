"""The stack: services that start together in one folder, and that end together with their owner."""

import os
import select
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from devstack import folder, programs, signals
from devstack.clamd import Clamd
from devstack.errors import StackError
from devstack.fcm import Fcm
from devstack.folder import Folder
from devstack.mariadb import MariaDB
from devstack.mysql import MySQL
from devstack.process import STOP_SECONDS, Process
from devstack.redis import Redis
from devstack.s3 import S3
from devstack.service import Service

# In the order of starting: the others come up while MariaDB lays out its tables.
SERVICES: dict[str, type[Service]] = {kind.name: kind for kind in (S3, Fcm, Clamd, Redis, MariaDB)}
if os.environ.get("DEVSTACK_DATABASE") == "mysql":
    SERVICES[MariaDB.name] = MySQL

Kind = TypeVar("Kind", bound=Service)


class Stack:
    """Services on free loopback ports, which run while the `with` lasts.

    `with Stack("demo", ["mariadb", "redis"]) as stack:` starts them; `stack.environment` points the workers at them;
    `stack.redis.kill()`, `.pause()`, `.restart()` break and mend one. Raise StackError if one cannot start.
    """

    def __init__(
        self, name: str = "default", services: Iterable[str] = tuple(SERVICES), root: Path = folder.DEFAULT_ROOT
    ) -> None:
        chosen = set(services)
        if unknown := chosen - SERVICES.keys():
            raise StackError(f"No service is called {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
        self.name = name
        self._chosen = [service for service in SERVICES if service in chosen]
        self._root = root
        self._services: dict[str, Service] = {}
        self._programs: list[Process] = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        programs.ensure(self._chosen)
        with ExitStack() as undo:
            undo.enter_context(signals.unwinding())
            self._held = undo.enter_context(folder.claim(self.name, self._root))
            undo.callback(self._stop)
            for name in self._chosen:
                service = self._services[name] = SERVICES[name](self._held)
                service.launch()
            for service in self._services.values():
                service.await_ready()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo.close()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point the workers at the services of this stack, and at no others."""
        return {key: value for service in self._services.values() for key, value in service.environment().items()}

    @property
    def mariadb(self) -> MariaDB:
        return self._started(MariaDB)

    @property
    def redis(self) -> Redis:
        return self._started(Redis)

    @property
    def clamd(self) -> Clamd:
        return self._started(Clamd)

    @property
    def s3(self) -> S3:
        return self._started(S3)

    @property
    def fcm(self) -> Fcm:
        return self._started(Fcm)

    @property
    def folder(self) -> Folder:
        return self._held

    def run(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Start a program of the project beside the services, with this environment alone. It is stopped before they are."""
        program = Process(name, self._held)
        self._programs.append(program)
        program.spawn(command, folder.PROJECT, environment)

    def check(self) -> None:
        """Raise StackError, with the end of its log, if a service or a program has ended."""
        if failures := [failure for process in self._processes() if (failure := process.failure())]:
            raise StackError("\n".join(failures))

    def watch(self) -> NoReturn:
        """Block for as long as every service and program runs. Raise StackError when one has ended."""
        with ExitStack() as opened:
            ended = select.poll()
            for process in self._processes():
                if process.running:
                    handle = os.pidfd_open(process.pid)
                    opened.callback(os.close, handle)
                    ended.register(handle, select.POLLIN)
            while True:
                self.check()
                # Bounded, for a signal that comes just before the call does not interrupt it.
                ended.poll(1000)

    def _processes(self) -> list[Process]:
        return [*self._services.values(), *self._programs]

    def _started(self, kind: type[Kind]) -> Kind:
        service = self._services.get(kind.name)
        if not isinstance(service, kind):
            raise StackError(f"The stack {self.name!r} runs without {kind.name}")
        return service

    def _stop(self) -> None:
        signals.deaf()
        for together in self._programs, list(self._services.values()):
            for process in together:
                process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            for process in together:
                process.join(deadline - time.monotonic())
        self._programs.clear()
        self._services.clear()
