"""A small deployment of real processes: worker, beat, gateway and Flower, on the run's MariaDB, Redis and providers."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine, text

from db.engine import get_engine
from db.needs import VERSION_TABLE
from devstack.ports import free_port
from tests.operations.conftest import Samples, samples, value
from tests.processes import PLAIN, Process, answers, python, wait_until

COMMANDS = {
    "worker": "celery -A workers.app worker -Q notifications,housekeeping -n main@test -c 2 --without-mingle",
    "beat": "workers.beat",
    "gateway": "workers.gateway",
    "flower": "celery -A workers.app flower",
}


class Deployment:
    """The processes of a Procfile."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.gateway = f"http://127.0.0.1:{environment['GATEWAY_PORT']}"
        self.flower = f"http://127.0.0.1:{environment['FLOWER_PORT']}"
        self.folder = folder
        own = {**os.environ, **environment}
        self.processes = {name: Process(python(words), own, folder / f"{name}.log") for name, words in COMMANDS.items()}

    @property
    def flower_user(self) -> str:
        """user:password, as Flower made it up."""
        return (self.folder / "flower-password").read_text().strip()

    def scrape(self) -> Samples:
        """Return what /metrics says now."""
        answer = httpx.get(f"{self.gateway}/metrics", timeout=10, verify=PLAIN)
        assert answer.status_code == 200
        return samples(answer.text)


def eventually(condition: Callable[[], bool], what: str | Callable[[], str]) -> None:
    """Poll, more slowly than wait_until: each look is a scrape."""
    wait_until(condition, what, every=0.3)


@pytest.fixture(scope="package")
def deployment(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Worker, beat, gateway and Flower on an empty Redis."""
    with Redis.from_url(environment["CELERY_BROKER_URL"]) as client:
        client.flushdb()
    folder = tmp_path_factory.mktemp("deployment")
    ports = {"GATEWAY_PORT": str(free_port()), "FLOWER_PORT": str(free_port()), "FLOWER_DIR": str(folder)}
    deployment = Deployment({**environment, **ports, "EVENTS_URL": "http://127.0.0.1:9/events"}, folder)
    try:
        for process in deployment.processes.values():
            process.start()
        eventually(lambda: answers(f"{deployment.gateway}/healthz"), "the gateway answered")
        eventually(lambda: answers(f"{deployment.flower}/healthcheck"), "Flower answered")
        eventually(lambda: bool(value(deployment.scrape(), "worker_up", worker="main@test")), "the worker was seen")
        eventually(lambda: bool(value(deployment.scrape(), "beat_up")), "beat was seen")
        yield deployment
    finally:
        for process in deployment.processes.values():
            process.kill()


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
