"""The alerts that wake people fire for real, and end: the condition is caused, a Prometheus scrapes the gateway."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from redis import Redis
from sqlalchemy import Engine, text

from devstack.chat import conversation_pairs, enqueue, load_chat
from devstack.emulators.client import Emulator, Fault
from devstack.ports import free_port
from devstack.programs import ensure, find
from tasks import counters
from tests.operations.conftest import Execute
from tests.operations.deployed.conftest import Deployment, eventually
from tests.operations.test_alerts import ALERTS, CAUSES, another_version, late_pushes, slow_answers
from tests.processes import PLAIN, Process, answers

Firing = Callable[[], set[str]]

CAUSED = {
    "ChatWorkersBreakerOpen",
    "ChatWorkersBacklogOld",
    "ChatWorkersQueueWithoutWorker",
    "ChatWorkersWorkerLost",
    "ChatWorkersBeatDown",
    "ChatWorkersBackupStale",
}


@pytest.fixture
def firing(deployment: Deployment, tmp_path: Path) -> Iterator[Firing]:
    """The names of the alerts that fire, as a Prometheus of one second's patience says."""
    ensure(["tests"])
    at_once = [{**rule, "for": "0s"} for rule in ALERTS.values()]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "at once", "rules": at_once}]}))
    target = deployment.gateway.removeprefix("http://")
    scrape = {"job_name": "chat-workers", "static_configs": [{"targets": [target]}]}
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (tmp_path / "prometheus.yml").write_text(
        yaml.safe_dump({"global": every, "rule_files": ["rules.yml"], "scrape_configs": [scrape]})
    )
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        find("prometheus"),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    prometheus = Process(command, os.environ, tmp_path / "prometheus.log").start()
    try:
        prometheus.wait_until(lambda: answers(f"{url}/-/ready"), "Prometheus was ready")

        def scraped() -> bool:
            answer = httpx.get(f"{url}/api/v1/query", params={"query": "chat_workers_beat_up"}, verify=PLAIN)
            return bool(answer.json()["data"]["result"])

        eventually(scraped, "Prometheus had scraped the gateway")
        yield lambda: {
            alert["labels"]["alertname"]
            for alert in httpx.get(f"{url}/api/v1/alerts", verify=PLAIN).json()["data"]["alerts"]
            if alert["state"] == "firing"
        }
    finally:
        prometheus.stop()


def await_firing(firing: Firing, expected: set[str], again: Callable[[], object] = lambda: None) -> None:
    """Wait until all of them fire at once, with `again` before each look; a failure names those that do not."""
    missing = set(expected)

    def all_fire() -> bool:
        again()
        missing.clear()
        missing.update(expected - firing())
        return not missing

    eventually(all_fire, lambda: f"{', '.join(sorted(missing))} fired")


def pending(engine: Engine, rows: int, *, age: int = 0) -> None:
    with engine.begin() as connection:
        if pairs := conversation_pairs(connection):
            first = connection.execute(text("SELECT COALESCE(MAX(id), 0) + 1 FROM messages")).scalar_one()
            enqueue(connection, pairs, rows, first=first)
        else:
            load_chat(connection, users=50, conversations=60, notifications=rows, quiet=0, bad_tokens=0)
        connection.execute(
            text("UPDATE chat_notifications SET created_at = NOW() - INTERVAL :age SECOND WHERE delivery_status = 'PENDING'"),
            {"age": age},
        )


@pytest.mark.timeout(900)
def test_the_main_alerts_fire_and_end(deployment: Deployment, chat: Engine, emulator: Emulator, firing: Firing) -> None:
    assert firing() & CAUSED == set()

    emulator.inject(Fault(kind="reset"))
    pending(chat, 200)
    await_firing(firing, {"ChatWorkersBreakerOpen"})
    emulator.clear()

    deployment.processes["worker"].kill()
    deployment.processes["beat"].kill()
    pending(chat, 10, age=600)
    with chat.begin() as connection:
        connection.execute(
            text("INSERT INTO worker_backup_runs (job, outcome, milliseconds, ended_at) VALUES ('daily', 'done', 1, :old)"),
            {"old": "2026-01-01 00:00:00"},
        )
    await_firing(firing, CAUSED - {"ChatWorkersBreakerOpen"})

    deployment.processes["worker"].start()
    deployment.processes["beat"].start()
    with chat.begin() as connection:
        connection.execute(text("DELETE FROM worker_backup_runs"))
    eventually(lambda: firing() & CAUSED == set(), "all of them had ended")


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("well")
def test_every_alert_fires(deployment: Deployment, execute: Execute, redis: Redis, firing: Firing) -> None:
    """With what its cause leaves behind in MySQL and Redis. The last three blind others, so they come after them."""
    for name in ("worker", "beat"):
        deployment.processes[name].kill()
    last = ["ChatWorkersBeatDown", "ChatWorkersCollectorDown"]
    for alert in CAUSES.keys() - set(last):
        CAUSES[alert][0](execute, redis)

    def again() -> None:
        """A series that begins has not increased yet, and an announced worker is there for some seconds only."""
        for cause in (slow_answers, late_pushes, another_version):
            cause(execute, redis)
        counters.flush(at_once=True)

    await_firing(firing, CAUSES.keys() - set(last), again)
    for alert in last:
        CAUSES[alert][0](execute, redis)
        await_firing(firing, {alert})
    deployment.processes["gateway"].kill()
    await_firing(firing, {"ChatWorkersGatewayDown"})
    redis.flushdb()
    for name in ("worker", "beat", "gateway"):
        deployment.processes[name].start()
    eventually(lambda: answers(f"{deployment.gateway}/healthz"), "the gateway answered")
