"""What a drain takes out of its queue is sound; what is not waits for the examination, which keeps, counts and says it."""

import json
from copy import deepcopy
from typing import Any, cast

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tasks.notifications import nudges
from tests.messages import samples
from tests.messages.test_envelope import examine

pytestmark = pytest.mark.usefixtures("environment")

NOTIFICATIONS = samples.raw(nudges.QUEUE)
DRAIN = samples.raw(nudges.TASK)


def nudge() -> dict[str, Any]:
    return samples.message(task=nudges.TASK, queue=nudges.QUEUE)


def waiting(redis: Redis) -> list[bytes]:
    """Return what waits, the first to be taken first."""
    return cast(list[bytes], redis.lrange(nudges.QUEUE, 0, -1))[::-1]


def test_nothing_that_the_contract_refuses_is_taken(redis: Redis) -> None:
    bad = [samples.raw(element) for _, element, _ in samples.BAD]
    bad = [raw.replace(samples.raw(samples.QUEUE), NOTIFICATIONS).replace(samples.raw(samples.TASK), DRAIN) for raw in bad]
    for raw in bad:
        redis.lpush(nudges.QUEUE, samples.raw(nudge()), raw)
    assert nudges.take_waiting() == len(bad)
    assert waiting(redis) == bad


def test_nudges_are_taken_whoever_wrote_them(app: "Celery[Any]", redis: Redis) -> None:
    nodes = json.loads(samples.CELERY_NODE[0])
    nodes["headers"]["task"], nodes["properties"]["delivery_info"]["routing_key"] = nudges.TASK, nudges.QUEUE
    redis.lpush(nudges.QUEUE, json.dumps(nodes, separators=(",", ":")))
    redis.lpush(nudges.QUEUE, json.dumps(json.loads(samples.DOCUMENTED)))
    app.send_task(nudges.TASK, expires=60)
    app.send_task(nudges.TASK, time_limit=200, soft_time_limit=100)
    app.send_task(nudges.TASK, headers={"traceparent": "00-1-2-01"})
    assert nudges.take_waiting() == 5


def test_messages_of_other_tasks_keep_their_order(redis: Redis) -> None:
    others = [samples.raw(samples.message(task=task, queue=nudges.QUEUE)) for task in ("tasks.notifications.adopt", "tasks.x")]
    for other in others:
        redis.lpush(nudges.QUEUE, samples.raw(nudge()), other, samples.raw(nudge()))
    assert nudges.take_waiting() == 4
    assert waiting(redis) == others


@pytest.mark.parametrize("depth", [100, 990, 100_000])
def test_what_is_nested_deeply_stays(redis: Redis, depth: int) -> None:
    deep = samples.raw(nudge())[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"
    redis.lpush(nudges.QUEUE, deep, samples.raw(nudge()))
    assert nudges.take_waiting() == 1
    assert waiting(redis) == [deep]


def test_more_than_one_look_takes_are_taken(redis: Redis) -> None:
    redis.lpush(nudges.QUEUE, *[samples.raw(nudge())] * (nudges.LOOKED_AT + 1))
    assert nudges.take_waiting() == nudges.LOOKED_AT + 1


OTHERS = ["x", "shadow", "stamps", "stamped_headers", "replaced_task_nesting", "group_index", "sent_at", "compression"]
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 10)
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.none() | st.integers(-1, 20_000), min_size=2, max_size=2)
    | st.sampled_from(["utf-8", "base64", nudges.TASK, "2026-02-30T00:00:00Z", "2026-12-31T23:59:591Z", "2026-01-01T00:00:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_whatever_is_taken_would_have_been_accepted(app: "Celery[Any]", redis: Redis, data: st.DataObject) -> None:
    message = deepcopy(nudge())
    parts = [message, message["headers"], message["properties"], message["properties"]["delivery_info"]]
    for _ in range(data.draw(st.integers(1, 2))):
        part = data.draw(st.sampled_from(parts))
        part[data.draw(st.sampled_from([*part, *OTHERS]))] = data.draw(ODD)
    raw = samples.raw(message)
    redis.delete(nudges.QUEUE)
    redis.lpush(nudges.QUEUE, raw)
    if nudges.take_waiting():
        examine(raw, app, nudges.QUEUE)
