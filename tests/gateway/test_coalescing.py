"""Many nudges become few messages, and none is lost by it."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from workers.gateway.broker import LONGEST_QUEUE, NotPublishedError
from workers.gateway.nudges import WINDOW_SECONDS, Nudges

from .conftest import Gateway, Queue


def test_a_burst_costs_one_message_for_each_window_however_soon_workers_take_them(
    gateway: Gateway, token: str, notifications: Queue
) -> None:
    taken, ended = [], Event()

    def work() -> None:
        while not ended.is_set():
            if message := notifications.redis.brpop(["notifications"], 0.1):
                taken.append(message[1])

    with ThreadPoolExecutor(21) as threads:
        worker = threads.submit(work)
        began = time.monotonic()
        answers = list(threads.map(lambda _: gateway.post("notifications", token), range(300)))
        elapsed = time.monotonic() - began
        ended.set()
        worker.result()
    assert {answer.status_code for answer in answers} == {202}
    ids = {message["headers"]["id"] for message in (*map(json.loads, taken), *notifications.messages())}
    assert len(ids) <= elapsed / WINDOW_SECONDS + 2
    assert ids == {answer.json()["task_id"] for answer in answers}


def test_a_queue_that_nobody_reads_does_not_grow_without_end(gateway: Gateway, token: str, attachments: Queue) -> None:
    attachments.redis.lpush("attachments", *["{}"] * (LONGEST_QUEUE - 1))
    assert gateway.post("attachments", token, {"attachment_ids": [1, 2]}).status_code == 503
    assert gateway.post("attachments", token, {"attachment_ids": [1]}).status_code == 202
    refused = gateway.post("attachments", token, {"attachment_ids": [1]})
    assert refused.status_code == 503
    assert "The queue is full" in refused.json()["detail"]


def test_one_that_comes_while_a_message_is_on_its_way_is_in_the_next() -> None:
    """The worker may have taken the first and looked before the second one's row was there."""

    async def scene() -> tuple[list[tuple[list[str], bool]], int]:
        on_its_way, answered = asyncio.Event(), asyncio.Event()
        sent = 0

        async def publish() -> list[str]:
            nonlocal sent
            sent += 1
            on_its_way.set()
            await answered.wait()
            return [str(sent)]

        nudges = Nudges(publish)
        first = asyncio.create_task(nudges.nudge())
        await on_its_way.wait()
        others = [asyncio.create_task(nudges.nudge()) for _ in range(10)]
        answered.set()
        return [await each for each in (first, *others)], sent

    published, sent = asyncio.run(scene())
    assert sent == 2
    assert published == [(["1"], False), (["2"], False)] + [(["2"], True)] * 9


def test_all_who_share_a_message_learn_that_it_was_not_sent() -> None:
    async def scene() -> list[object]:
        async def publish() -> list[str]:
            raise NotPublishedError("down")

        nudges = Nudges(publish)
        return await asyncio.gather(*(nudges.nudge() for _ in range(3)), return_exceptions=True)

    found = asyncio.run(scene())
    assert [type(each) for each in found] == [NotPublishedError] * 3


def test_a_client_that_goes_away_takes_nobody_else_with_it() -> None:
    async def scene() -> tuple[list[str], bool]:
        async def publish() -> list[str]:
            await asyncio.sleep(0)
            return ["1"]

        nudges = Nudges(publish)
        first, second = asyncio.create_task(nudges.nudge()), asyncio.create_task(nudges.nudge())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert asyncio.run(scene()) == (["1"], True)
