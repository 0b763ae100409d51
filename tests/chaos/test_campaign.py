"""A short campaign against the whole stack: nothing is lost, stuck or wrong. The long one's results: docs/reliability.md."""

import os
import subprocess
import sys

import pytest

from devstack.folder import PROJECT
from tasks.notifications.queue import LEASE_SECONDS
from tasks.notifications.retry_policy import JITTER, LADDERS
from tests.chaos.campaign import QUIET_SECONDS

SEED = "7"
# One or two of each kind, without those that make a push wait for minutes, as providers ask for.
FAULTS = (
    "kill-worker,kill-child,freeze-worker,freeze-child,terminate-worker,terminate-child,kill-other,kill-beat,kill-gateway,"
    "freeze-gateway,db-kill,db-pause,db-connections,db-read-only,db-row-locks,db-deadlocks,db-table-lock,redis-kill,redis-lose,"
    "redis-full,push-down,push-mute,push-cut,push-denied,cut-off-database,cut-off-broker,clamd-kill,clamd-reload,disk-full"
)


@pytest.mark.timeout(480)
def test_a_short_campaign_loses_nothing() -> None:
    # A process of its own: the environment of the other tests is none of its business.
    environment = {key: value for key, value in os.environ.items() if key not in {"CELERY_BROKER_URL", "DATABASE_URL"}}
    command = [sys.executable, "-m", "tests.chaos", "--seed", SEED, "--minutes", "0.8", "--rate", "100", "--faults", FAULTS]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=470)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_campaign_waits_for_the_second_step_of_every_ladder() -> None:
    """A row that met two faults is not stuck, it is not yet due."""
    steps = [ladder.first * ladder.growth * JITTER[1] for ladder in LADDERS.values() if ladder.attempts]
    assert max(steps) + LEASE_SECONDS < QUIET_SECONDS
