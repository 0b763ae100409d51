"""What lies about in Redis, and what happens to Redis and to the worker, stops no good message either."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Producer
from redis import Redis

from devstack.folder import PROJECT
from devstack.stack import Stack
from tests.messages import samples
from tests.messages.conftest import Worker
from workers.messages import key_types, rejected
from workers.messages.contract import MOST_RESTORED, RESTORED

FLOOD = 10_000


def unacked(redis: Redis, tag: str, entry: object) -> None:
    """Leave an entry as a worker does that died long ago."""
    redis.hset("unacked", tag, samples.raw(entry))
    redis.zadd("unacked_index", {tag: 0})


def kept(redis: Redis) -> list[rejected.Rejected]:
    return list(rejected.kept(redis))


def test_ten_thousand_bad_messages_delay_a_good_one_by_seconds_and_fill_nothing(worker: Worker) -> None:
    rejected.discard_all(worker.redis)
    before = sum(rejected.rejected_counts(worker.redis).values())
    dropped = rejected.dropped_count(worker.redis)
    bad = samples.raw(samples.without("headers", "id"))
    lines = worker.lines.count("was refused")
    for _ in range(0, FLOOD, 1000):
        worker.redis.lpush(samples.QUEUE, *[bad] * 1000)
    worker.run()
    assert sum(rejected.rejected_counts(worker.redis).values()) - before == FLOOD
    assert len(kept(worker.redis)) == rejected.MOST_KEPT
    assert rejected.dropped_count(worker.redis) - dropped == FLOOD - rejected.MOST_KEPT
    assert worker.lines.count("was refused") - lines <= 40


def test_celery_node_is_served(worker: Worker) -> None:
    for raw in samples.CELERY_NODE:
        message = json.loads(raw)
        if message["headers"]["task"] == samples.TASK:
            worker.run(message)


def test_garbage_in_unacked_is_kept_aside_and_the_good_message_beside_it_runs(worker: Worker) -> None:
    """From a worker of an earlier version, or from someone's hand."""
    good = samples.good()
    poison = {
        "no-id": [samples.without("headers", "id"), "", samples.QUEUE],
        "no-headers": [samples.without("headers"), "", samples.QUEUE],
        "no-properties": [samples.without("properties"), "", samples.QUEUE],
        "list": [[], "", samples.QUEUE],
        "pair": [samples.good(), ""],
        "no-queue": [samples.good(), "", None],
        "not-json": b"\xff",
        "restored": [samples.with_(MOST_RESTORED + 1, "headers", RESTORED), "", samples.QUEUE],
    }
    rejected.discard_all(worker.redis)
    for tag, entry in poison.items():
        unacked(worker.redis, tag, entry)
    unacked(worker.redis, "good", [good, "", samples.QUEUE])
    worker.wait_for(good["headers"]["id"])
    worker.wait_until(lambda: worker.redis.hlen("unacked") == 0)
    assert worker.redis.zcard("unacked_index") == 0
    defects = sorted(k.defect for k in kept(worker.redis))
    assert defects == sorted(["headers.id", "headers", "properties", "unacked", "unacked", "unacked", "unacked", "restored"])


@pytest.mark.parametrize("key", [samples.QUEUE, samples.QUEUE + "\x06\x163"], ids=["queue", "queue of a priority"])
def test_a_queue_of_another_type_is_renamed_and_begins_anew(worker: Worker, key: str) -> None:
    worker.redis.set(key, "someone's note")
    worker.wait_until(lambda: not worker.redis.exists(key))
    worker.run()
    assert worker.redis.get(key_types.ASIDE + key) == b"someone's note"


@pytest.mark.parametrize("key", ["unacked", "unacked_index"])
def test_bookkeeping_of_another_type_is_renamed_and_nothing_is_lost(worker: Worker, key: str) -> None:
    worker.redis.delete(key)
    worker.redis.set(key, "someone's note")
    worker.run()
    assert worker.redis.get(key_types.ASIDE + key) == b"someone's note"


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"", b"{", b"[]", b"null", b"5", b"{}", b"[" * 5000, b"\xff", samples.raw(samples.without("properties"))),
        *(command for _, command in samples.BAD_COMMANDS),
    ],
    ids=[
        *("empty", "half", "list", "null", "number", "object", "deep", "no utf-8", "no properties"),
        *(name for name, _ in samples.BAD_COMMANDS),
    ],
)
def test_a_broken_remote_command_is_dropped_and_the_next_one_answered(worker: Worker, garbage: bytes) -> None:
    dropped = rejected.rejected_counts(worker.redis).get(("broker", "control"), 0)
    worker.redis.publish("/0.celery.pidbox", garbage)
    worker.wait_until(lambda: rejected.rejected_counts(worker.redis).get(("broker", "control"), 0) == dropped + 1)
    worker.run()


def test_inspect_still_gets_its_answer(worker: Worker, environment: dict[str, str]) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "inspect", "ping", "-d", "worker@test", "-t", "20"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "worker@test: OK" in asked.stdout


def test_none_of_this_cost_the_worker_its_process_or_a_connection(worker: Worker) -> None:
    assert worker.process.poll() is None
    assert worker.lines.count(" ready.") == 1
    assert "Traceback" not in worker.lines
    assert "Connection to broker lost" not in worker.lines


BOUND = "notifications\x06\x16\x06\x16notifications"


def test_what_is_no_binding_is_removed_and_the_exchange_leads_to_its_queue(app: "Celery[Any]", redis: Redis) -> None:
    redis.sadd(
        "_kombu.binding.notifications", BOUND, "x", "a\x06\x16b", b"\xff\x06\x16\x06\x16", "a\x06\x16b\x06\x16c\x06\x16d"
    )
    with app.connection_for_write() as connection:
        Producer(connection).publish({}, exchange="notifications", routing_key="notifications")
    assert redis.smembers("_kombu.binding.notifications") == {BOUND.encode()}
    assert redis.llen("notifications") == 1


@pytest.mark.parametrize(
    "key",
    [
        "_kombu.binding.celery.pidbox",
        "_kombu.binding.celeryev",
        "_kombu.binding.reply.celery.pidbox",
        "_kombu.binding_permanent.notifications",
        "_kombu.binding_deadlines",
    ],
)
def test_a_binding_table_of_another_type_is_renamed(app: "Celery[Any]", redis: Redis, key: str) -> None:
    redis.set(key, "someone's note")
    with app.connection_for_write() as connection:
        connection.connect()
    assert redis.get(key_types.ASIDE + key) == b"someone's note"


@pytest.mark.timeout(240)  # each of its waits may take WAIT_SECONDS
def test_a_worker_that_starts_among_bad_messages_and_a_killed_one_s_runs_the_good(
    environment: dict[str, str], redis: Redis, tmp_path: Path
) -> None:
    first = Worker(environment, redis, tmp_path / "first.log")
    first.run()
    first.kill()
    unacked(redis, "bad", [samples.without("headers", "id"), "", samples.QUEUE])
    unacked(redis, "worse", b"{")
    redis.set("unacked_mutex", "held by the killed one", ex=1)
    for _, element, _ in samples.BAD[:10]:
        redis.lpush(samples.QUEUE, samples.raw(element))
    good = samples.good()
    redis.lpush(samples.QUEUE, samples.raw(good))
    second = Worker(environment, redis, tmp_path / "second.log")
    try:
        second.wait_for(good["headers"]["id"])
        second.wait_until(lambda: redis.hlen("unacked") == 0)
        assert len(kept(redis)) == 12
        assert "Traceback" not in second.lines
    finally:
        second.kill()


@pytest.mark.timeout(240)  # each of its waits may take WAIT_SECONDS
def test_a_redis_that_restarts_among_bad_messages_finds_the_same_worker(
    environment: dict[str, str], stack: Stack, redis: Redis, tmp_path: Path
) -> None:
    worker = Worker(environment, redis, tmp_path / "worker.log")
    try:
        worker.run()
        for _, element, _ in samples.BAD[:10]:
            worker.push(element)
        stack.redis.restart()
        for _, element, _ in samples.BAD[:10]:
            worker.push(element)
        worker.listen()
        worker.run()
        assert len(kept(redis)) >= 10
        assert worker.process.poll() is None
    finally:
        worker.kill()
