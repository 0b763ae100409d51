"""What the gateway promises of each job is what the workers and beat do."""

import pytest

from beat_schedule import BEAT_SCHEDULE
from devstack.folder import PROJECT
from tasks.notifications.task import NUDGE_EXPIRES_SECONDS
from workers.gateway.catalogue import CATALOGUE

SWEEPS = {"notifications": "notifications-drain", "attachments": "attachments-sweep"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_job_is_a_task_of_the_workers_in_its_queue(name: str, environment: dict[str, str]) -> None:
    from workers.app import app

    app.loader.import_default_modules()
    job = CATALOGUE[name]
    assert job.task in app.tasks
    assert app.amqp.router.route({}, job.task)["queue"].name == job.queue


def test_all_but_a_withdrawal_is_swept() -> None:
    assert {name for name, job in CATALOGUE.items() if job.sweep_seconds} == SWEEPS.keys() == CATALOGUE.keys() - {"withdrawals"}


@pytest.mark.parametrize("name", SWEEPS)
def test_the_sweep_comes_as_often_as_is_said(name: str) -> None:
    seconds = int(BEAT_SCHEDULE[SWEEPS[name]]["schedule"].run_every.total_seconds())
    job = CATALOGUE[name]
    assert job.sweep_seconds == seconds
    assert f"within {seconds} s" in job.description
    assert f"| {seconds} s |" in (PROJECT / "docs/api.md").read_text()
    assert job.expires > seconds


def test_a_nudge_lives_as_long_as_the_workers_own() -> None:
    assert CATALOGUE["notifications"].expires == NUDGE_EXPIRES_SECONDS
