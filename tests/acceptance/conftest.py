"""Real worker processes: started as an operator starts them, ended by signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
from celery import Celery
from redis import Redis
from sqlalchemy import Engine

from devstack.chat import conversation_pairs, enqueue, load_chat
from devstack.emulators.client import Emulator
from devstack.folder import PROJECT

# Longer than a lease: a commit that a killed worker had already sent may outlive it.
WAIT_SECONDS = 90


def wait_until(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Poll until `condition` holds; fail naming `what` was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain until {what}")
        time.sleep(0.05)


class Worker:
    """A `celery worker` of the notifications queue in a process group of its own."""

    def __init__(self, environment: dict[str, str], name: str, log: IO[bytes], processes: int = 2) -> None:
        command = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-Q", "notifications"]
        self.process = subprocess.Popen(
            [*command, "-n", f"{name}@test", "--concurrency", str(processes), "--without-gossip", "--without-mingle"],
            cwd=PROJECT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.log = Path(log.name)

    def wait_ready(self) -> "Worker":
        wait_until(lambda: b" ready." in self.log.read_bytes(), "the worker was ready")
        return self

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL the parent and all its children at once, as when the machine loses power."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start_worker(environment: dict[str, str], redis: Redis, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start workers that are gone after the test."""
    started: list[Worker] = []

    def start(name: str = "worker", processes: int = 2, *, wait: bool = True) -> Worker:
        with (tmp_path / f"{name}.log").open("wb") as log:
            started.append(Worker(environment, name, log, processes))
        return started[-1].wait_ready() if wait else started[-1]

    yield start
    for worker in started:
        worker.kill()


Send = Callable[..., None]


@pytest.fixture
def send(environment: dict[str, str]) -> Send:
    """Send a task by name, as an API that shares no code with the workers does."""
    producer = Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False)

    def by_name(task: str, *args: object, expires: float | None = None) -> None:
        producer.send_task(task, args=args, queue=task.split(".")[1], expires=expires, ignore_result=True)

    return by_name


@pytest.fixture
def nudge(send: Send) -> Callable[[], None]:
    """What the API does after its commit."""
    return lambda: send("tasks.notifications.drain")


@pytest.fixture
def tick(send: Send) -> Callable[[], None]:
    """What beat does, whenever the test wants it."""

    def all_of_them() -> None:
        for task in ("drain", "retry_failed", "adopt"):
            send(f"tasks.notifications.{task}", expires=5)

    return all_of_them


@pytest.fixture
def load(chat: Engine, emulator: Emulator) -> Callable[[int], None]:
    """Add so many PENDING rows of one to three devices each, all of them wanted."""

    def add(rows: int) -> None:
        with chat.begin() as connection:
            pairs = conversation_pairs(connection)
            if pairs:
                first = connection.exec_driver_sql("SELECT MAX(id) + 1 FROM chat_notifications").scalar_one()
                enqueue(connection, pairs, rows, first=first)
            else:
                load_chat(connection, users=200, conversations=300, notifications=rows, quiet=0, bad_tokens=0)

    return add
