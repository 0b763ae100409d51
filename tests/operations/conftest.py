"""A browser, a look at the picture from this process, and what a scrape says."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from selenium.webdriver import Chrome
from sqlalchemy import Engine

from tasks import broker
from tests.browser import chromium
from workers.gateway.app import make_app
from workers.operations import picture, source
from workers.operations import redis as redis_client

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
def look_in_time(environment: dict[str, str]) -> Iterator[Callable[[], picture.Picture]]:
    """What looks now, in this process, with clients of this test's own."""
    forget()
    yield fresh
    forget()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a reading all the time that a slow machine may take."""
    monkeypatch.setattr(source, "DEADLINE_SECONDS", 20.0)
    monkeypatch.setattr(picture, "STATEMENT_SECONDS", 20)
    monkeypatch.setattr(picture, "READ_SECONDS", 20)
    monkeypatch.setattr(redis_client, "SECONDS", 20.0)


@pytest.fixture
def look(unhurried: None, look_in_time: Callable[[], picture.Picture]) -> Callable[[], picture.Picture]:
    """The same without production's deadlines."""
    return look_in_time


def fresh() -> picture.Picture:
    picture._sources.cache_clear()
    return picture.look()


def forget() -> None:
    for cached in (picture._sources, picture._pings, picture._engine, broker.shared):
        cached.cache_clear()


@pytest.fixture
def gateway(unhurried: None, chat: Engine, redis: Redis) -> Iterator[TestClient]:
    """The gateway's application on an empty database and an empty Redis, without a server before it."""
    forget()
    with TestClient(make_app()) as client:
        yield client
    forget()


@pytest.fixture
def execute(chat: Engine) -> Callable[..., None]:
    """Write to the empty chat database."""

    def run(statement: str, **values: object) -> None:
        with chat.begin() as connection:
            connection.exec_driver_sql(statement, values or None)

    return run
