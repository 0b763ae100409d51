"""A drain that is told to stop leaves the queue's nudges, beat's tick among them, to who can act on them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
from redis import Redis

from devstack.emulators.client import Emulator, Fault
from tasks import shutdown
from tasks.notifications import nudges, task
from tests.messages import samples
from tests.notifications.conftest import Chat, forget_process


@pytest.fixture(autouse=True)
def asked_to_stop() -> Iterator[None]:
    yield
    shutdown.forget()
    forget_process()


@pytest.fixture
def nudge(redis: Redis, environment: dict[str, str]) -> bytes:
    from workers.app import app

    app.set_current()  # or the task would be sent by whichever app was made last
    raw = samples.raw(samples.message(task=nudges.TASK, queue=nudges.QUEUE))
    redis.lpush(nudges.QUEUE, raw)
    return raw


def test_a_drain_that_begins_after_the_request_takes_no_nudge(api: Chat, redis: Redis, nudge: bytes) -> None:
    waiting = api.notify()
    shutdown.request_stop()
    task.drain()
    assert redis.lrange(nudges.QUEUE, 0, -1) == [nudge]
    assert api.status(waiting)[0] == "PENDING"
    shutdown.forget()
    task.drain()
    assert redis.llen(nudges.QUEUE) == 0
    assert api.status(waiting)[0] == "SENT"


def test_a_drain_that_is_stopped_after_it_took_the_nudges_sends_one_for_them(
    api: Chat, redis: Redis, nudge: bytes, emulator: Emulator
) -> None:
    api.notify()
    emulator.inject(Fault(kind="slow", latency=9))

    def stop() -> None:
        while not emulator.stats().in_flight:
            sleep(0.01)
        shutdown.request_stop()
        emulator.clear()

    with ThreadPoolExecutor(1) as other:
        stopping = other.submit(stop)
        task.drain()
        stopping.result()
    [instead] = redis.lrange(nudges.QUEUE, 0, -1)
    assert instead != nudge
