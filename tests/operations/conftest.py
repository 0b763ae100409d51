"""A browser, a snapshot taken by this process, and what a scrape says."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from selenium.webdriver import Chrome
from sqlalchemy import Engine

from settings import get_settings
from tasks import broker, counters
from tasks.jobs import QUEUES
from tests.browser import chromium
from workers.gateway.app import make_app
from workers.operations import fleet, reader, snapshot
from workers.operations.snapshot import Snapshot

Look = Callable[[], Snapshot]
Execute = Callable[..., None]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Return a scrape by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    """Return one number of a scrape, without the prefix in its name."""
    return found.get((f"chat_workers_{name}", frozenset(labels.items())))


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """A headless Chromium, one for all tests."""
    # What the pages log is kept; a refused style or script is said there.
    with chromium("--window-size=1200,1400") as browser:
        yield browser


@pytest.fixture
def look_in_time(environment: dict[str, str]) -> Iterator[Look]:
    """What looks now, in this process, with clients of this test's own."""
    forget()
    yield fresh
    forget()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a reading all the time that a slow machine may take."""
    for name in ("DEADLINE_SECONDS", "STATEMENT_SECONDS", "READ_SECONDS", "REDIS_SECONDS"):
        monkeypatch.setattr(reader, name, 20)


@pytest.fixture
def look(unhurried: None, look_in_time: Look) -> Look:
    """The same without production's deadlines."""
    return look_in_time


def fresh() -> Snapshot:
    snapshot._sources.cache_clear()
    return snapshot.read_all()


def forget() -> None:
    for cached in (snapshot._sources, snapshot._pings, reader.engine, broker.shared):
        cached.cache_clear()


@pytest.fixture
def gateway(unhurried: None, chat: Engine, redis: Redis) -> Iterator[TestClient]:
    """The gateway's application on an empty database and an empty Redis, without a server before it."""
    forget()
    with TestClient(make_app(), base_url="http://127.0.0.1") as client:
        yield client
    forget()


NOTIFICATION = (
    "INSERT INTO chat_notifications (id, conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens,"
    " delivery_status, created_at) VALUES (%(id)s, 1, 1, 2, 1, 'secret title', 'secret body', '[\"secret-token\"]',"
    " %(status)s, NOW() - INTERVAL %(age)s SECOND)"
)
CHAT = (
    "INSERT INTO users (id, first_name, last_name) VALUES (1, 'A', 'B'), (2, 'C', 'D')",
    "INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id) VALUES (1, 'c', 1, 2)",
    "INSERT INTO messages (id, message_id, conversation_id, sender_id) VALUES (1, 'm', 1, 1)",
)


@pytest.fixture
def own_counters(redis: Redis) -> Iterator[None]:
    """No increments of other tests, a Redis to hand them on to, and a first sample of them."""
    counters._forget_the_parents_increments()
    counters.flush_to(lambda: redis)
    counters._next_flush = counters._paused_until = counters._next_sample = 0.0
    counters.sample()
    yield
    counters._forget_the_parents_increments()
    counters._connect = None


@pytest.fixture
def well(redis: Redis, own_counters: None, execute: Execute, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers for all queues, a receiver of events and a beat that has sent everything; so much as needs no process."""
    monkeypatch.setenv("EVENTS_URL", "http://127.0.0.1:9/events")
    get_settings.cache_clear()
    from redbeat import RedBeatSchedulerEntry

    from workers.app import app

    for statement in CHAT:
        execute(statement)
    fleet.announce(redis, "all@test", {"queues": list(QUEUES), "worker_processes": 2, "worker_busy_processes": 0})
    redis.set("chat-workers:beat::lock", "held")
    for name, entry in app.conf.beat_schedule.items():
        RedBeatSchedulerEntry(name, **entry, app=app).save()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.fixture
def execute(chat: Engine) -> Execute:
    """Write to the empty chat database."""

    def run(statement: str, **values: object) -> None:
        with chat.begin() as connection:
            connection.exec_driver_sql(statement, values or None)

    return run
