"""A load run fails where something grows, and passes where all stays flat and each push went out once."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from devstack.chat import load_chat
from devstack.folder import PROJECT
from tests.chaos.__main__ import PUBLISHED
from tests.chaos.client import Client
from tests.chaos.pushes import Pushes
from tests.chaos.scene import Scene
from tests.chaos.volume import (
    BURST_SECONDS,
    FEWEST_SAMPLES,
    MEMORY,
    SAMPLE_SECONDS,
    TABLES,
    Sample,
    Sampler,
    await_done,
    judge,
    too_few,
    too_slow,
    unasked,
)

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


def published(name: str) -> list[Sample]:
    """Return the samples of a published run."""
    return [Sample(**each) for each in json.loads((PUBLISHED / f"{name}.json").read_text())["samples"]]


def run_of(minutes: float, **rises: Callable[[float], float]) -> list[Sample]:
    """Return a run's samples: each field by what it is after so many minutes; the rest is as in SAMPLE."""
    count = round(minutes * 60 / SAMPLE_SECONDS)
    times = [SAMPLE_SECONDS * number for number in range(1, count + 1)]
    return [Sample(**(asdict(SAMPLE) | {"at": at} | {name: rise(at / 60) for name, rise in rises.items()})) for at in times]


LEAKS: dict[str, Callable[[float], float]] = {
    "worker_mb": lambda minute: 1280 + 14 * minute,
    "p50": lambda minute: 0.045 + 0.255 * minute / 30,
    "p99": lambda minute: 0.55 + 1.35 * minute / 30,
    "redis_keys": lambda minute: 2115 + 60 * minute,
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_slow_leak_is_found_in_half_an_hour(name: str) -> None:
    [problem] = judge(run_of(30, **{name: LEAKS[name]}))
    assert problem.startswith(f"not flat: {name} was ")


@pytest.mark.parametrize(("share", "found"), [(0.12, 1), (0.08, 0)])
def test_memory_may_grow_by_a_tenth_an_hour(share: float, found: int) -> None:
    assert len(judge(run_of(30, worker_mb=lambda minute: 1280 * (1 + share * minute / 60)))) == found


def test_a_leak_of_memory_is_found_in_ten_minutes() -> None:
    assert len(judge(run_of(10, worker_mb=LEAKS["worker_mb"]))) == 1


def test_the_published_half_hour_is_flat() -> None:
    assert judge(published("steady")) == []


@pytest.mark.parametrize("minutes", [2, 5])
def test_a_busy_machine_makes_noise_in_a_short_run(minutes: int) -> None:
    chance = random.Random(minutes)
    noise: dict[str, Callable[[float], float]] = {
        "p50": lambda _: chance.uniform(0.03, 0.3),
        "p99": lambda _: chance.uniform(0.3, 1.9),
        "worker_mb": lambda _: chance.uniform(1230, 1310),
        "redis_keys": lambda _: chance.uniform(35, 45),
        "redis_mb": lambda _: chance.uniform(2.5, 3.1),
    }
    assert judge(run_of(minutes, **noise)) == []


def test_memory_has_to_stay_flat_while_a_backlog_is_drained() -> None:
    drained = published("backlog")
    assert judge(drained, MEMORY, long=True) == []
    leaking = [replace(each, worker_mb=each.worker_mb + each.at / 2) for each in drained]
    [problem] = judge(leaking, MEMORY, long=True)
    assert problem.startswith("not flat: worker_mb was ")


def test_a_run_that_wrote_too_little_shows_too_little() -> None:
    assert too_few(11_400, 12_000) == []
    assert too_few(11_399, 12_000) == ["11,399 rows were written of 12,000 that were asked for"]


def test_a_burst_that_took_longer_than_a_minute_was_none() -> None:
    assert too_slow(BURST_SECONDS + 5) == []
    assert too_slow(BURST_SECONDS + 10) == ["inserted in 70 s instead of 60"]


def test_a_process_that_ended_and_a_statement_that_was_refused_are_problems() -> None:
    quiet, refused = (cast(Client, SimpleNamespace(name="readers", failed=failed)) for failed in (0, 2))
    assert unasked({}, [quiet]) == []
    assert [problem.what for problem in unasked({"beat-a: 1": 1}, [quiet, refused])] == [
        "a process has ended, which nobody asked it to: beat-a: 1",
        "the API's own statements were refused: 2 of its readers",
    ]


def test_a_rate_is_met_whatever_its_fraction_in_a_step() -> None:
    written: list[int] = []
    pushes = Pushes("mysql://host/chat", "redis://host", "https://push", [(1, 2)], rate=50, seed=1)
    cursor: Any = SimpleNamespace(execute=lambda _, values: written.append(len(values) // 9), executemany=lambda *_: None)
    for _ in range(8):
        pushes.step(cursor)
    assert sum(written) == 100


def test_what_is_left_when_patience_ends_is_not_called_done(chat: Engine) -> None:
    scene, sampler = cast(Scene, SimpleNamespace(engine=chat)), cast(Sampler, None)
    assert await_done(scene, sampler, [], print, patience=0) == []
    with chat.begin() as connection:
        load_chat(connection, users=10, conversations=10, notifications=3)
    assert await_done(scene, sampler, [], print, patience=0) == ["3 rows were not done after 0 s"]


@pytest.mark.timeout(900)
def test_a_short_steady_run_sends_each_push_once() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in {"CELERY_BROKER_URL", "DATABASE_URL"}}
    command = [sys.executable, "-m", "tests.chaos", "--seed", "11", "--steady", "0.5", "--rate", "50"]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=290)
    assert ended.returncode == 0, ended.stdout + ended.stderr
