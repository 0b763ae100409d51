"""A small deployment of real processes, a real browser and a real Prometheus for what operators see."""

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
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from sqlalchemy import Engine

from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.programs import ensure, find
from tests.acceptance.conftest import wait_until
from workers.operations import picture
from workers.operations import redis as reaching

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

COMMANDS = {
    "worker": "-m celery -A workers.app worker -Q notifications,housekeeping -n main@test -c 2 --without-mingle",
    "beat": "-m celery -A workers.app beat",
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


def samples(text: str) -> Samples:
    """Return a scrape by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    """Return one number of a scrape, without the prefix in its name."""
    return found.get((f"chat_workers_{name}", frozenset(labels.items())))


def answers(url: str) -> Callable[[], bool]:
    """Return what asks whether something answers there."""

    def ask() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=2).status_code < 500
        return False

    return ask


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
        wait_until(answers(f"{deployment.gateway}/healthz"), "the gateway answered", 30)
        wait_until(answers(f"{deployment.flower}/healthcheck"), "Flower answered", 30)
        wait_until(lambda: bool(value(deployment.scrape(), "worker_up", worker="main@test")), "the worker was seen", 30)
        wait_until(lambda: bool(value(deployment.scrape(), "beat_up")), "beat was seen", 30)
        yield deployment
    finally:
        deployment.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """A headless Chromium, one for all tests."""
    ensure(["tests"])
    options = ChromeOptions()
    options.binary_location = find("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1200,1400"):
        options.add_argument(argument)
    # What the pages log; a refused style or script is said there.
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(find("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def look(environment: dict[str, str]) -> Iterator[Callable[[], picture.Picture]]:
    """What looks now, in this process, with clients of this test's own."""
    forget()
    yield lambda: fresh()
    forget()


def fresh() -> picture.Picture:
    picture._sources.cache_clear()
    return picture.look()


def forget() -> None:
    for cached in (picture._sources, picture._pings, picture._engine, reaching.client):
        cached.cache_clear()


@pytest.fixture
def execute(chat: Engine) -> Callable[..., None]:
    """Write to the empty chat database."""

    def run(statement: str, **values: object) -> None:
        with chat.begin() as connection:
            connection.exec_driver_sql(statement, values or None)

    return run


def eventually(condition: Callable[[], bool], what: str, seconds: float = 40) -> None:
    """Poll, more slowly than wait_until: each look is a scrape."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain until {what}")
        time.sleep(0.3)
