"""Beat as the Procfile starts it, with a schedule and times of the tests' own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from devstack.folder import PROJECT
from tests.acceptance.conftest import load, start_worker

# Put in the place of sitecustomize: an entry that ticks twice a second, one of each day, and shorter times.
SHORT = """
import os

import workers.celery_config
from beat_schedule import entry, every

if os.environ.get("BEAT_TEST_SCHEDULE") != "real":
    workers.celery_config.BEAT_SCHEDULE = {
        "tick": entry("tasks.typing_indicators.expire", every(0.5), expires=60),
        "daily": entry("tasks.retention.purge_worker_tables", every(86400), expires=60),
    }
workers.celery_config.BEAT_LOOP_SECONDS = 0.5
workers.celery_config.BEAT_LOCK_SECONDS = 5
"""


class Beat:
    """One `python -m workers.beat`: a supervisor and its child."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        short = log.with_suffix(".d")
        short.mkdir()
        (short / "sitecustomize.py").write_text(SHORT)
        variables = {**os.environ, **environment, "PYTHONPATH": f"{short}{os.pathsep}{PROJECT}"}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers.beat"], cwd=PROJECT, env=variables, stdout=file, stderr=file
            )

    def said(self, words: str, times: int = 1) -> bool:
        return self.log.read_text().count(words) >= times

    @property
    def child(self) -> int:
        """The process id of beat itself."""
        try:
            found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(found[0]) if found else 0

    def signal_child(self, number: signal.Signals) -> None:
        os.kill(self.child, number)

    def end(self) -> None:
        """End it as a supervisor does: it gives its lock back."""
        self.process.terminate()
        self.process.wait(60)

    def kill(self) -> None:
        """SIGKILL both."""
        child = self.child
        self.process.kill()
        self.process.wait()
        if child:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


@pytest.fixture
def start_beat(environment: dict[str, str], redis: Redis, tmp_path: Path) -> Iterator[Callable[..., Beat]]:
    """Start beats that are gone after the test."""
    started: list[Beat] = []

    def start(name: str = "beat", **variables: str) -> Beat:
        started.append(Beat({**environment, **variables}, tmp_path / f"{name}.log"))
        return started[-1]

    yield start
    for beat in started:
        beat.kill()


@pytest.fixture
def ticks(redis: Redis) -> Callable[[], int]:
    """How many times beat has sent its entry so far: nobody takes the messages."""
    return lambda: _messages(redis, b"tasks.typing_indicators.expire")


@pytest.fixture
def dailies(redis: Redis) -> Callable[[], int]:
    """How many times beat has sent the entry of once a day."""
    return lambda: _messages(redis, b"tasks.retention.purge_worker_tables")


def _messages(redis: Redis, task: bytes) -> int:
    messages: Any = redis.lrange("housekeeping", 0, -1)
    return sum(b'"task": "' + task + b'"' in message for message in messages)


# Real workers too, as the acceptance tests start them.
__all__ = ["load", "start_worker"]
