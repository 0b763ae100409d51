"""An odd value in Redis, whoever wrote it, costs at most its own part of /metrics and /status."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from celery.worker.state import active_requests
from click.testing import CliRunner
from fastapi.testclient import TestClient
from redis import Redis

from tasks import counters
from tests.operations.conftest import Samples, samples, value
from workers.cli import cli
from workers.operations import fleet
from workers.operations.worker_signals import MOST_RUNNING, Heartbeat

Write = Callable[[Redis], object]


def unacked(entry: bytes) -> Write:
    return lambda redis: redis.hset("unacked", "tag", entry)


def heartbeat(raw: bytes) -> Write:
    def write(redis: Redis) -> None:
        fleet.announce(redis, "odd@test", {})
        redis.set(f"{fleet.ALIVE}odd@test", raw)

    return write


def counted(field: bytes) -> Write:
    return lambda redis: redis.hset(counters.KEY, field, 1)


HARMLESS = {
    "unacked, cut short": unacked(b"{"),
    "unacked, no text": unacked(b"\xff"),
    "unacked, too few": unacked(b"[1]"),
    "unacked, a number": unacked(b"1"),
    "unacked, an object": unacked(b"{}"),
    "a heartbeat that says nothing": heartbeat(b"{}"),
    "a counter without labels": counted(b'["deliveries"]'),
    "a counter that nobody knows": counted(b'["brand_new", "x"]'),
}
# What cannot be read around: the part is missing, and says so.
COSTLY = {
    "beat": lambda redis: redis.hset("chat-workers:beat:notifications-drain", "meta", "{"),
    "queues": lambda redis: redis.set("unacked", "x"),
    "counters": lambda redis: redis.hset(counters.KEY, b'["scans", "clean"]', "many"),
}


def up(found: Samples) -> dict[str, float]:
    return {dict(labels)["collector"]: number for (name, labels), number in found.items() if name.endswith("collector_up")}


@pytest.mark.parametrize("write", HARMLESS.values(), ids=HARMLESS.keys())
def test_an_entry_that_cannot_be_read_hides_nothing(gateway: TestClient, redis: Redis, write: Write) -> None:
    write(redis)
    scraped = gateway.get("/metrics")
    assert scraped.status_code == 200
    assert set(up(samples(scraped.text)).values()) == {1}
    assert gateway.get("/status").status_code == 200
    assert gateway.get("/status", headers={"Accept": "application/json"}).json()["sections"]["workers"].keys() == {"workers"}


@pytest.mark.parametrize("part", COSTLY)
def test_what_cannot_be_read_costs_its_own_part_and_says_so(gateway: TestClient, redis: Redis, part: str) -> None:
    COSTLY[part](redis)
    for _ in range(2):  # the second shares the reading of the first
        scraped = gateway.get("/metrics")
        assert scraped.status_code == 200
        assert [name for name, ok in up(samples(scraped.text)).items() if not ok] == [part]
        shown = gateway.get("/status")
        assert shown.status_code == 200
        assert f"What lies in {part} cannot be read" in shown.text


def test_a_newer_workers_heartbeat_is_read_as_far_as_it_is_known(gateway: TestClient, redis: Redis) -> None:
    fleet.announce(redis, "odd@test", {"queues": ["backups"], "worker_processes": 3, "mood": "good"})
    found = samples(gateway.get("/metrics").text)
    assert value(found, "worker_processes", worker="odd@test") == 3
    assert value(found, "queue_consumers", queue="backups") is None  # backups are not set up here
    assert gateway.get("/status").status_code == 200


@dataclass(eq=False)
class Request:
    """So much of Celery's request as a heartbeat tells of."""

    id: str
    name: str = "tasks.notifications.drain"
    time_start: float = 1.0


def test_more_tasks_than_are_named_are_counted() -> None:
    """The oldest are told one by one; how many there are is told of all."""
    requests = [Request(str(number)) for number in range(25)]
    app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from={"notifications": None})))
    controller = SimpleNamespace(hostname="big@test", concurrency=32, app=app)
    for request in requests:
        active_requests.add(request)
    try:
        told = Heartbeat(controller).about()
    finally:
        for request in requests:
            active_requests.discard(request)
    assert (told["worker_busy_processes"], len(told["running"])) == (25, MOST_RUNNING)


@pytest.mark.usefixtures("look")
def test_the_command_shows_the_rest(redis: Redis) -> None:
    COSTLY["beat"](redis)
    unacked(b"{")(redis)
    done = CliRunner().invoke(cli, ["status"])
    assert done.exit_code == 1
    assert "What lies in beat cannot be read" in done.stdout
    assert "docs/runbook.md, ChatWorkersCollectorDown" in done.stdout
    assert "Queues" in done.stdout
