"""A short campaign against the whole stack: nothing is lost, stuck or wrong. The long one's results: docs/reliability.md."""

import json
import os
import random
import subprocess
import sys

import pytest
from sqlalchemy import Engine, text

from devstack.folder import PROJECT
from tasks.notifications.queue import LEASE_SECONDS
from tasks.notifications.retry_policy import JITTER, LONGEST_SECONDS
from tests.chaos.__main__ import RESULTS
from tests.chaos.campaign import LONGEST_QUIET_SECONDS, draw, may_wait
from tests.chaos.faults.table import FAULTS as ALL

SEED = "7"
# One or two for each target, without those that make a push wait for minutes, as providers ask for.
FAULTS = (
    "kill-worker",
    "kill-child",
    "terminate-child",
    "kill-other",
    "kill-beat",
    "kill-gateway",
    "db-kill",
    "db-read-only",
    "db-deadlocks",
    "redis-lose",
    "push-mute",
    "push-cut",
    "cut-off-broker",
    "clamd-kill",
    "disk-full",
)


@pytest.mark.timeout(1210)
def test_a_short_campaign_loses_nothing() -> None:
    # A process of its own: the environment of the other tests is none of its business.
    environment = {key: value for key, value in os.environ.items() if key not in {"CELERY_BROKER_URL", "DATABASE_URL"}}
    faults = ("--once", "--faults", ",".join(FAULTS))
    command = [sys.executable, "-m", "tests.chaos", "--seed", SEED, "--rate", "100", *faults]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=1200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    played = json.loads((RESULTS / f"seed-{SEED}/chaos.json").read_text())["faults"]
    assert {name for name, line in played.items() if line["bit"]} == set(FAULTS)


@pytest.mark.parametrize(
    ("due_in", "waited", "waits"), [(3000, 481, True), (3000, 6001, False), (-61, 479, True), (-61, 481, False)]
)
def test_a_row_whose_retry_is_not_due_yet_is_not_stuck(chat: Engine, due_in: int, waited: float, waits: bool) -> None:
    with chat.begin() as connection:
        connection.execute(
            text("INSERT INTO worker_deliveries (notification_id, due_at) VALUES (1, NOW(3) + INTERVAL :due SECOND)"),
            {"due": due_in},
        )
    assert may_wait(chat, waited) is waits


def test_a_campaign_waits_for_the_longest_step_of_every_ladder() -> None:
    assert LONGEST_SECONDS * JITTER[1] + LEASE_SECONDS < LONGEST_QUIET_SECONDS


def test_each_fault_is_drawn_once_and_those_that_want_to_be_alone_are() -> None:
    deck: list[str] = []
    chance = random.Random(1)
    drawn = [draw(deck, tuple(ALL), chance)]
    while deck:
        drawn.append(draw(deck, tuple(ALL), chance))
    assert sorted(name for names in drawn for name in names) == sorted(ALL)
    assert [names for names in drawn if len(names) > 1 and any(ALL[name].alone for name in names)] == []
    assert any(len(names) > 1 for names in drawn)
    assert all(len({ALL[name].target for name in names}) == len(names) for names in drawn)
