"""Messages that expire: late enough for hosts whose clocks differ, and counted."""

from collections.abc import Callable

import pytest
from redis import Redis

from beat_schedule import BEAT_SCHEDULE
from tasks import counters
from tests.acceptance.conftest import Send, send, start_worker
from tests.processes import Process, wait_until
from workers.operations.worker_signals import EXPIRED

__all__ = ["send", "start_worker"]


@pytest.mark.parametrize("name", BEAT_SCHEDULE)
def test_a_worker_whose_clock_is_minutes_ahead_of_beats_still_takes_its_ticks(name: str) -> None:
    assert BEAT_SCHEDULE[name]["options"]["expires"] >= 300


@pytest.mark.usefixtures("chat")
def test_a_message_that_has_expired_is_counted(redis: Redis, start_worker: Callable[..., Process], send: Send) -> None:
    start_worker(processes=1)
    send("tasks.notifications.drain", expires=-1)
    counted = (EXPIRED.name, "tasks.notifications.drain")
    wait_until(lambda: counters.read(redis, [EXPIRED]).get(counted) == 1, "the message was counted as expired", 30)
