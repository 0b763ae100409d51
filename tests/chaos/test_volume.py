"""A load run fails where something grows, and passes where all stays flat and each push went out once."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import Engine

from devstack.chat import load_chat
from devstack.folder import PROJECT
from tests.chaos.scene import Scene
from tests.chaos.volume import FEWEST_SAMPLES, TABLES, Sample, Sampler, await_done, judge

SAMPLE = Sample(0, 100, 1000, 0.5, 1.5, 900, 30, 5, dict.fromkeys(TABLES, 0))


def samples(**growth: float) -> list[Sample]:
    """Return flat samples, but for what grows: by its share of the first value with each sample of the last third."""
    found = []
    for number in range(3 * FEWEST_SAMPLES):
        late = max(0, number - 2 * FEWEST_SAMPLES + 1)
        tables = {table: number * 100 + int(late * growth.get(table, 0)) for table in TABLES[1:]}
        tables["worker_deliveries"] = int(late * growth.get("worker_deliveries", 0))
        grown = {name: getattr(SAMPLE, name) + late * by for name, by in growth.items() if name not in TABLES}
        found.append(replace(SAMPLE, at=10.0 * number, tables=tables, **grown))
    return found


def test_what_is_flat_is_no_problem() -> None:
    assert judge(samples()) == []


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("waiting", 1000),
        ("p50", 1),
        ("p99", 3),
        ("worker_mb", 100),
        ("redis_keys", 50),
        ("redis_mb", 3),
        ("worker_deliveries", 1000),
        ("worker_delivery_history", 1000),
        ("worker_scans", 1000),
    ],
)
def test_what_grows_is_found(name: str, by: float) -> None:
    [problem] = judge(samples(**{name: by}))
    assert problem.startswith(f"not flat: {name} was ")


def test_a_few_samples_tell_no_drift() -> None:
    assert judge(samples(p50=1)[-3 * FEWEST_SAMPLES + 1 :]) == []


def test_what_is_left_when_patience_ends_is_not_called_done(chat: Engine) -> None:
    scene, sampler = cast(Scene, SimpleNamespace(engine=chat)), cast(Sampler, None)
    assert await_done(scene, sampler, [], print, patience=0) == []
    with chat.begin() as connection:
        load_chat(connection, users=10, conversations=10, notifications=3)
    assert await_done(scene, sampler, [], print, patience=0) == ["3 rows were not done after 0 s"]


@pytest.mark.timeout(300)
def test_a_short_steady_run_sends_each_push_once() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in {"CELERY_BROKER_URL", "DATABASE_URL"}}
    command = [sys.executable, "-m", "tests.chaos", "--seed", "11", "--steady", "1", "--rate", "50"]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=290)
    assert ended.returncode == 0, ended.stdout + ended.stderr
