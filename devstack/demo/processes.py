"""The Procfile's processes, run by honcho under a guard, so that they end with the demo, however that ends."""

import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from celery import Celery
from honcho.environ import parse_procfile

from devstack import signals
from devstack.demo import guard
from devstack.errors import StackError
from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.probe import http_status

PROCFILE = PROJECT / "Procfile"
READY_SECONDS = 60.0
TAIL_LINES = 20

# All that is kept of the caller's environment: its DATABASE_URL, proxies and Firebase account are none of the demo's business.
KEPT = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")


class Processes:
    """A context in which the Procfile's processes run, Flower and the gateway among them on free ports."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        """`environment` points the workers at their services; `log` takes all that the processes print."""
        self.log = log
        ports = {"FLOWER_PORT": str(free_port()), "GATEWAY_PORT": str(free_port())}
        self.environment = {**environment, "FLOWER_ADDRESS": "127.0.0.1", "GATEWAY_ADDRESS": "127.0.0.1", **ports}
        self.environment["FLOWER_DIR"] = str(log.parent)
        self.names = tuple(parse_procfile(PROCFILE.read_text()).processes)
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def flower(self) -> str:
        return f"http://{self.environment['FLOWER_ADDRESS']}:{self.environment['FLOWER_PORT']}"

    @property
    def gateway(self) -> str:
        return f"http://{self.environment['GATEWAY_ADDRESS']}:{self.environment['GATEWAY_PORT']}"

    def __enter__(self) -> Self:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        # The Procfile names its programs as an activated environment would have them.
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        # Not the .env of honcho's default: it is for a real deployment.
        honcho = [sys.executable, "-m", "honcho", "--no-colour", "-d", str(PROJECT), "-f", PROCFILE.name, "-e", os.devnull]
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-m", guard.__name__, *honcho, "start"],
                cwd=PROJECT,
                env={**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **self.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        signals.deaf()
        if self._guard is not None:
            self._guard.communicate(b".", timeout=guard.STOP_SECONDS + 10)

    def await_ready(self) -> None:
        """Wait until a worker and Flower answer. Raise StackError if one of the processes ends or it takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        with Celery(broker=self.environment["CELERY_BROKER_URL"]) as api:
            while not (self._flower_answers() and api.control.ping(timeout=0.5)):
                if why := self.failure():
                    raise StackError(why)
                if time.monotonic() > deadline:
                    raise StackError(f"the Procfile's processes did not answer within {READY_SECONDS:.0f} s. {self.log_ends()}")
                time.sleep(0.1)

    def failure(self) -> str | None:
        """Return, if a process has ended (honcho then ends them all), a sentence with the end of the log."""
        if self._guard is None or self._guard.poll() is None:
            return None
        return f"One of the Procfile's processes has ended. {self.log_ends()}"

    def _flower_answers(self) -> bool:
        return http_status(int(self.environment["FLOWER_PORT"]), "GET", "/healthcheck") == 200

    def log_ends(self) -> str:
        """Return the end of the log, introduced."""
        with self.log.open(errors="replace") as log:
            return f"The log {self.log} ends:\n{''.join(deque(log, maxlen=TAIL_LINES)).rstrip()}"


def nudge(broker: str) -> None:
    """Ask for a drain as the API does, which shares no code with the workers: by the task's name."""
    with Celery(broker=broker) as api:
        api.send_task("tasks.notifications.drain", queue="notifications", ignore_result=True)
