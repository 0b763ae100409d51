"""A drain takes the nudges that wait out of its queue, and nothing else."""

import json
from typing import Any, cast

import pytest
from celery import Celery
from redis import Redis

from tasks.notifications import nudges
from tests.messages import samples

pytestmark = pytest.mark.usefixtures("environment")


def nudge() -> dict[str, Any]:
    return samples.message(task=nudges.TASK, queue=nudges.QUEUE)


def waiting(redis: Redis) -> list[bytes]:
    """Return what waits, the first to be taken first."""
    return cast(list[bytes], redis.lrange(nudges.QUEUE, 0, -1))[::-1]


def test_what_asks_for_no_drain_stays_in_its_order(redis: Redis) -> None:
    others = [raw for _, element, _ in samples.BAD if len(raw := samples.raw(element)) <= nudges.LONGEST_BYTES]
    others += [samples.raw(samples.message(task=task, queue=nudges.QUEUE)) for task in ("tasks.notifications.adopt", "tasks.x")]
    others.append(samples.raw(samples.message(note=f'"task": "{nudges.TASK}"', task="tasks.x", queue=nudges.QUEUE)))
    others.append(json.dumps({"body": json.dumps({"task": nudges.TASK})}).encode())
    for other in others:
        redis.lpush(nudges.QUEUE, samples.raw(nudge()), other)
    assert nudges.take_waiting() == len(others)
    assert waiting(redis) == others


def test_nudges_are_taken_whoever_wrote_them(app: "Celery[Any]", redis: Redis) -> None:
    nodes = samples.CELERY_NODE[0].replace(samples.TASK.encode(), nudges.TASK.encode())
    redis.lpush(nudges.QUEUE, nodes, samples.DOCUMENTED, json.dumps(json.loads(samples.DOCUMENTED)))
    app.send_task(nudges.TASK, expires=60)
    app.send_task(nudges.TASK, headers={"traceparent": "00-1-2-01"})
    assert nudges.take_waiting() == 5
    assert waiting(redis) == []


def test_a_burst_is_taken_at_one_look(redis: Redis) -> None:
    redis.lpush(nudges.QUEUE, *[samples.raw(nudge())] * nudges.LOOKED_AT)
    assert nudges.take_waiting() == nudges.LOOKED_AT


def test_what_is_longer_than_a_nudge_is_looked_at_no_further(redis: Redis) -> None:
    """Redis would copy all that waits, however long, and answer nobody meanwhile."""
    long = samples.raw(samples.message(note="x" * nudges.LONGEST_BYTES, task="tasks.x", queue=nudges.QUEUE))
    redis.lpush(nudges.QUEUE, samples.raw(nudge()), long, samples.raw(nudge()))
    assert nudges.take_waiting() == 1
    assert waiting(redis)[0] == long
    redis.rpop(nudges.QUEUE)
    assert nudges.take_waiting() == 1
