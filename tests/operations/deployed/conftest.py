"""A small deployment of real processes: worker, beat, gateway and Flower, on the run's MariaDB, Redis and providers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine, text

from db.engine import get_engine
from db.migrate import VERSION_TABLE
from devstack.folder import PROJECT
from devstack.ports import free_port
from tests.operations.conftest import Samples, samples, value

COMMANDS = {
    "worker": "-m celery -A workers.app worker -Q notifications,housekeeping -n main@test -c 2 --without-mingle",
    "beat": "-m workers.beat",
    "gateway": "-m workers.gateway",
    "flower": "-m celery -A workers.app flower",
}


class Deployment:
    """The processes of a Procfile, each in a process group of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.gateway = f"http://127.0.0.1:{environment['GATEWAY_PORT']}"
        self.flower = f"http://127.0.0.1:{environment['FLOWER_PORT']}"
        self._environment = {**os.environ, **environment}
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def flower_user(self) -> str:
        """user:password, as Flower made it up."""
        return (self.folder / "flower-password").read_text().strip()

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *COMMANDS[name].split()],
                cwd=PROJECT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL a process and its children, as when the machine loses power."""
        process = self._processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def ask_to_stop(self, name: str) -> None:
        """Send a process SIGTERM, as a supervisor does, and do not wait for its end."""
        self._processes[name].terminate()

    def stop(self, name: str) -> None:
        """End a process as a supervisor does."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait(20)

    def close(self) -> None:
        for name in list(self._processes):
            self.kill(name)

    def scrape(self) -> Samples:
        """Return what /metrics says now."""
        answer = httpx.get(f"{self.gateway}/metrics", timeout=10)
        assert answer.status_code == 200
        return samples(answer.text)


def answers(url: str) -> Callable[[], bool]:
    """Return what asks whether something answers there."""

    def ask() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=2).status_code < 500
        return False

    return ask


def eventually(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Poll, more slowly than wait_until: each look is a scrape."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain until {what}")
        time.sleep(0.3)


@pytest.fixture(scope="package")
def deployment(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Worker, beat, gateway and Flower on an empty Redis."""
    with Redis.from_url(environment["CELERY_BROKER_URL"]) as client:
        client.flushdb()
    folder = tmp_path_factory.mktemp("deployment")
    ports = {"GATEWAY_PORT": str(free_port()), "FLOWER_PORT": str(free_port()), "FLOWER_DIR": str(folder)}
    deployment = Deployment({**environment, **ports}, folder)
    try:
        for name in COMMANDS:
            deployment.start(name)
        eventually(answers(f"{deployment.gateway}/healthz"), "the gateway answered")
        eventually(answers(f"{deployment.flower}/healthcheck"), "Flower answered")
        eventually(lambda: bool(value(deployment.scrape(), "worker_up", worker="main@test")), "the worker was seen")
        eventually(lambda: bool(value(deployment.scrape(), "beat_up")), "beat was seen")
        yield deployment
    finally:
        deployment.close()


@pytest.fixture
def emptied(deployment: Deployment) -> Engine:
    """The deployment's database without a row in it."""
    engine = get_engine()
    with engine.begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        for table in connection.execute(text("SHOW TABLES")).scalars().all():
            if table != VERSION_TABLE:
                connection.execute(text(f"DELETE FROM `{table}`"))
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
    return engine
