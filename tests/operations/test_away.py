"""A scrape and a page come in time whatever is away, say what is missing, and never pile up."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from devstack.stack import Stack
from tests.operations.conftest import Look, samples, value
from tests.processes import PLAIN, wait_until
from workers.gateway.app import make_app
from workers.operations import reader, snapshot
from workers.operations.exposition import exposition
from workers.operations.reader import DEADLINE_SECONDS, Reading, Source, together
from workers.operations.snapshot import FROM_DATABASE, FROM_REDIS, Snapshot


@pytest.fixture
def look(look_in_time: Look) -> Look:
    """With the deadlines of production: they are what this is about."""
    return look_in_time


def up(found: Snapshot) -> dict[str, bool]:
    read = samples(exposition(found).decode())
    return {reading.name: bool(value(read, "collector_up", collector=reading.name)) for reading in found.readings}


DATABASE, REDIS = FROM_DATABASE.keys(), FROM_REDIS.keys() | {"counters"}


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_a_database_that_is_away_hides_nothing_of_redis(chat: Engine, redis: Redis, stack: Stack, look: Look, how: str) -> None:
    wait_until(lambda: all(up(look()).values()), "all was read")
    try:
        getattr(stack.mariadb, how)()
        found = look()
        assert {name for name, ok in up(found).items() if not ok} == DATABASE
        said = " ".join(t.sentence for t in found.troubles() if t.alert == "ChatWorkersCollectorDown")
        assert all(name in said for name in DATABASE)
        assert {r.name: r.ok for r in snapshot.read_ready()} == {"database": False, "broker": True}
    finally:
        stack.mariadb.resume() if how == "pause" else stack.mariadb.start()


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_a_redis_that_is_away_hides_nothing_of_the_database(
    chat: Engine, redis: Redis, stack: Stack, look: Look, how: str
) -> None:
    try:
        getattr(stack.redis, how)()
        found = look()
        assert {name for name, ok in up(found).items() if not ok} == REDIS
        (trouble,) = (t for t in found.troubles() if t.alert == "ChatWorkersCollectorDown")
        assert "What lies in queues, messages, workers, beat, counters cannot be read: " in trouble.sentence
        assert {r.name: r.ok for r in snapshot.read_ready()} == {"database": True, "broker": False}
    finally:
        stack.redis.resume() if how == "pause" else stack.redis.start()


def test_a_table_that_is_missing_hides_its_own_section_only(chat: Engine, redis: Redis, look: Look) -> None:
    with chat.begin() as connection:
        connection.execute(text("RENAME TABLE worker_scans TO worker_scans_away"))
    try:
        assert [name for name, ok in up(look()).items() if not ok] == ["attachments"]
    finally:
        with chat.begin() as connection:
            connection.execute(text("RENAME TABLE worker_scans_away TO worker_scans"))


def test_the_server_itself_ends_a_statement_that_takes_too_long(look: Look) -> None:
    with reader.database() as connection, pytest.raises(DBAPIError, match=r"1969|3024"):
        connection.execute(text("SELECT SLEEP(30)")).all()


def test_many_scrapes_at_once_share_one_reading() -> None:
    begun, go_on, readings = threading.Barrier(9), threading.Event(), []

    def read(_: None) -> int:
        readings.append(1)
        go_on.wait(DEADLINE_SECONDS)
        return 1

    source = Source(nullcontext, {"one": read})

    def scrape() -> tuple[Reading, ...]:
        begun.wait()
        return together(source)

    with ThreadPoolExecutor(8) as threads:
        scrapes = [threads.submit(scrape) for _ in range(8)]
        begun.wait()
        go_on.set()
        assert {scrape.result()[0].value for scrape in scrapes} == {1}
    assert readings == [1]


def test_strangers_who_ask_whether_all_is_ready_take_no_thread_from_operators(
    stack: Stack, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def read() -> object:
        asked.append(1)
        return snapshot.read_ready()

    monkeypatch.setattr("workers.gateway.app.read_ready", read)

    async def ask() -> float:
        transport = httpx.ASGITransport(make_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", verify=PLAIN) as client:
            strangers = [asyncio.create_task(client.get("/readyz")) for _ in range(100)]
            most, waiting = 0.0, {*strangers}
            while waiting:
                _, waiting = await asyncio.wait(waiting, timeout=0.02)
                most = max(most, current_default_thread_limiter().borrowed_tokens)
            assert {each.result().status_code for each in strangers} == {503}
        return most

    look()
    stack.mariadb.pause()
    try:
        assert asyncio.run(ask()) == 0
        assert len(asked) < 10  # of a hundred: they share what is read
    finally:
        stack.mariadb.resume()


def test_what_was_read_before_the_deadline_is_shown_and_the_rest_is_a_fault() -> None:
    go_on = threading.Event()
    quick, slow = together(Source(nullcontext, {"quick": lambda _: 1, "slow": lambda _: go_on.wait(60)}))
    go_on.set()
    assert quick.value == 1
    assert slow.fault == "no answer within 2 s"


def test_a_slow_source_does_not_make_the_answer_of_a_quick_one_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick one's answer is used however long the slow one is waited for."""
    monkeypatch.setattr("workers.operations.reader.KEEP_SECONDS", 0.0)
    go_on, readings = threading.Event(), []

    def quick(_: None) -> int:
        readings.append(1)
        return len(readings)

    found = together(Source(nullcontext, {"slow": lambda _: go_on.wait(60)}), Source(nullcontext, {"quick": quick}))
    go_on.set()
    assert [(reading.name, reading.value) for reading in found] == [("slow", None), ("quick", 1)]
    assert readings == [1]
