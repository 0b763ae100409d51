"""What lies about in Redis, and what happens to Redis and to the worker, stops no good message either."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from devstack.folder import PROJECT
from devstack.stack import Stack
from tests.messages import samples
from tests.messages.conftest import Worker
from workers.messages import rejected
from workers.messages.read import MOST_RESTORED, RESTORED

FLOOD = 10_000
REFUSED = [element for _, element, defect in samples.BAD if defect is not samples.HEALS][:10]


def unacked(redis: Redis, tag: str, entry: object) -> None:
    """Leave an entry as a worker does that died long ago."""
    redis.hset("unacked", tag, samples.raw(entry))
    redis.zadd("unacked_index", {tag: 0})


def kept(redis: Redis) -> list[dict[str, Any]]:
    return list(rejected.kept(redis))


def discard_all(redis: Redis) -> None:
    redis.xtrim(rejected.KEPT, maxlen=0)


def test_ten_thousand_bad_messages_delay_a_good_one_by_seconds_and_fill_nothing(worker: Worker) -> None:
    before = sum(rejected.rejected_counts(worker.redis).values())
    bad = samples.raw(samples.without("headers", "task"))
    lines = worker.lines.count("was refused")
    for _ in range(0, FLOOD, 1000):
        worker.redis.lpush(samples.QUEUE, *[bad] * 1000)
    worker.run()
    assert sum(rejected.rejected_counts(worker.redis).values()) - before == FLOOD
    assert len(kept(worker.redis)) == rejected.MOST_KEPT
    assert worker.lines.count("was refused") - lines <= 40


def test_garbage_in_unacked_is_kept_aside_and_what_can_be_read_beside_it_runs(worker: Worker) -> None:
    """From a worker of an earlier version, or from someone's hand."""
    good, healed = samples.good(), samples.without("properties")
    poison = {
        "no-task": [samples.without("headers", "task"), "", samples.QUEUE],
        "no-headers": [samples.without("headers"), "", samples.QUEUE],
        "list": [[], "", samples.QUEUE],
        "pair": [samples.good(), ""],
        "no-queue": [samples.good(), "", None],
        "empty-queue": [samples.good(), "", ""],
        "not-json": b"\xff",
        "restored": [samples.with_(MOST_RESTORED + 1, "headers", RESTORED), "", samples.QUEUE],
    }
    discard_all(worker.redis)
    for tag, entry in poison.items():
        unacked(worker.redis, tag, entry)
    for tag, message in (("healed", healed), ("good", good)):
        unacked(worker.redis, tag, [message, "", samples.QUEUE])
    worker.wait_for(good["headers"]["id"])
    worker.wait_for(healed["headers"]["id"])
    worker.wait_until(lambda: worker.redis.hlen("unacked") == 0, "nothing was left in unacked")
    assert worker.redis.zcard("unacked_index") == 0
    assert sorted(k["defect"] for k in kept(worker.redis)) == ["json"] * 5 + ["restored", "task", "task"]


def test_another_app_s_message_in_unacked_goes_back_to_its_list_as_it_is(worker: Worker) -> None:
    """Unless our reader wrote it: that one is counted, wherever it came from."""
    theirs = samples.message(task="theirs.task", queue="theirs")
    ours = samples.with_(MOST_RESTORED, "headers", RESTORED)
    for tag, message in (("theirs", theirs), ("ours", ours)):
        unacked(worker.redis, tag, [message, "", "theirs"])
    worker.wait_until(lambda: worker.redis.llen("theirs") == 2, "both lay in the other queue")
    back = {message["headers"]["task"]: message for message in map(json.loads, worker.redis.lrange("theirs", 0, -1))}
    assert back["theirs.task"]["properties"]["delivery_tag"] == theirs["properties"]["delivery_tag"]
    assert RESTORED not in back["theirs.task"]["headers"]
    assert back[samples.TASK]["headers"][RESTORED] == MOST_RESTORED + 1
    worker.redis.delete("theirs")


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
    worker.wait_until(
        lambda: rejected.rejected_counts(worker.redis).get(("broker", "control"), 0) == dropped + 1, "it was counted"
    )
    worker.run()


def test_inspect_still_gets_its_answer(worker: Worker, environment: dict[str, str]) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "inspect", "ping", "-d", "worker@test", "-t", "20"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "worker@test: OK" in asked.stdout


def test_none_of_this_cost_the_worker_its_process_or_a_connection(worker: Worker) -> None:
    assert worker.runs
    assert worker.lines.count(" ready.") == 1
    assert "Traceback" not in worker.lines
    assert "Connection to broker lost" not in worker.lines


@pytest.mark.parametrize("key", [samples.QUEUE, "unacked"])
def test_a_key_of_another_type_is_named_until_it_is_gone(
    environment: dict[str, str], redis: Redis, tmp_path: Path, key: str
) -> None:
    """Someone ran SET on it. A worker that runs says so as well as one that starts."""
    worker = Worker(environment, redis, tmp_path / "worker.log")
    sentence = f"these keys of Redis must be renamed or deleted: {key!r}"
    try:
        worker.run()
        redis.delete(key)
        redis.set(key, "someone's note")
        if "unacked" in key:
            redis.lpush(samples.QUEUE, samples.raw(samples.good()))
        worker.wait_until(lambda: sentence in worker.lines, "the worker said so")
        redis.rename(key, "someone-s")
        worker.run()
    finally:
        worker.kill()
    # Celery waits 2 s, 4 s and so on from one attempt to the next.
    assert worker.lines.count("Traceback") <= 2


@pytest.mark.timeout(900)  # each of its waits may take WAIT_SECONDS
def test_a_worker_that_starts_among_bad_messages_and_a_killed_one_s_runs_the_good(
    environment: dict[str, str], redis: Redis, tmp_path: Path
) -> None:
    first = Worker(environment, redis, tmp_path / "first.log")
    first.run()
    first.kill()
    unacked(redis, "bad", [samples.without("headers", "task"), "", samples.QUEUE])
    unacked(redis, "worse", b"{")
    redis.set("unacked_mutex", "held by the killed one", ex=1)
    for element in REFUSED:
        redis.lpush(samples.QUEUE, samples.raw(element))
    good = samples.good()
    redis.lpush(samples.QUEUE, samples.raw(good))
    second = Worker(environment, redis, tmp_path / "second.log")
    try:
        second.wait_for(good["headers"]["id"])
        second.wait_until(lambda: redis.hlen("unacked") == 0, "nothing was left in unacked")
        assert len(kept(redis)) == 2 + len(REFUSED)
        assert "Traceback" not in second.lines
    finally:
        second.kill()


@pytest.mark.timeout(900)  # each of its waits may take WAIT_SECONDS
def test_a_redis_that_restarts_among_bad_messages_finds_the_same_worker(
    environment: dict[str, str], stack: Stack, redis: Redis, tmp_path: Path
) -> None:
    worker = Worker(environment, redis, tmp_path / "worker.log")
    try:
        worker.run()
        for element in REFUSED:
            worker.push(element)
        stack.redis.restart()
        for element in REFUSED:
            worker.push(element)
        worker.listen()
        worker.run()
        assert len(kept(redis)) >= len(REFUSED)
        assert worker.runs
    finally:
        worker.kill()


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
def test_a_connection_that_redis_closes_leaves_the_worker_listening(
    environment: dict[str, str], redis: Redis, tmp_path: Path, kind: str
) -> None:
    """As it does to a subscriber whose output is too long; so does a Redis that is back before the worker has looked."""
    worker = Worker(environment, redis, tmp_path / "worker.log")
    try:
        worker.run()
        assert redis.client_kill_filter(_type=kind, skipme=True)
        worker.listen()
        worker.run()
        worker.run()
    finally:
        worker.kill()


def test_a_child_that_took_another_s_place_holds_no_connection_of_its_parent(
    environment: dict[str, str], redis: Redis, tmp_path: Path
) -> None:
    """Else one that the parent closes stays in its epoll for good, and what comes on the next of that number is not read."""
    worker = Worker(environment, redis, tmp_path / "worker.log")

    def network(pid: int) -> set[str]:
        tables = "".join(Path(f"/proc/{pid}/net/{kind}").read_text() for kind in ("tcp", "tcp6"))
        inodes = {line.split()[9] for line in tables.splitlines() if line.split()[0] != "sl"}
        links = (path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir())
        return {link for link in links if link.removeprefix("socket:[").removesuffix("]") in inodes}

    try:
        (first,) = worker.children
        worker.run()
        os.kill(first, signal.SIGKILL)
        worker.wait_until(lambda: len(worker.children) == 1 and worker.children != [first], "another child was there")
        worker.run()
        assert network(worker.pid)
        assert not network(worker.pid) & network(*worker.children)
    finally:
        worker.kill()
