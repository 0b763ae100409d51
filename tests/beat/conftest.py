"""Beat as the Procfile starts it, with a schedule and times of the tests' own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from devstack.folder import PROJECT
from tests.acceptance.conftest import load, start_worker
from tests.processes import Process, Start

# Put in the place of sitecustomize: an entry that ticks twice a second, one of each day, shorter times, and a clock that is an
# hour ahead while a file is there.
SHORT = """
import os
from datetime import timedelta

import celery

import workers.celery_config
from beat_schedule import entry, every

if os.environ.get("BEAT_TEST_SCHEDULE") != "real":
    workers.celery_config.BEAT_SCHEDULE = {
        "tick": entry("tasks.typing_indicators.expire", every(0.5), expires=60),
        "daily": entry("tasks.retention.purge_worker_tables", every(86400), expires=60),
    }
workers.celery_config.BEAT_LOOP_SECONDS = 0.5
workers.celery_config.BEAT_LOCK_SECONDS = 5
now, ahead = celery.Celery.now, os.environ.get("BEAT_TEST_AHEAD", "")
celery.Celery.now = lambda app: now(app) + timedelta(hours=os.path.exists(ahead))
"""


@pytest.fixture
def start_beat(start: Start, redis: Redis, tmp_path: Path) -> Callable[..., Process]:
    """Start beats that are gone after the test."""

    def start_one(name: str = "beat", **variables: str) -> Process:
        short = tmp_path / f"{name}.d"
        short.mkdir()
        (short / "sitecustomize.py").write_text(SHORT)
        return start("workers.beat", name, PYTHONPATH=f"{short}{os.pathsep}{PROJECT}", **variables)

    return start_one


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
