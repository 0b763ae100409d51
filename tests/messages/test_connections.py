"""Whatever happens to Redis, its keys and a worker's connections, the worker goes on: it is alone at the queue in each test."""

import os
import signal
from pathlib import Path

import pytest
from redis import Redis

from devstack.stack import Stack
from tests.messages import samples
from tests.messages.conftest import Worker
from tests.messages.test_faults import REFUSED, kept, unacked


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
    # A worker acknowledges in the turn of its loop after that in which it says that the task has ended.
    first.wait_until(lambda: redis.hlen("unacked") == 0, "its message was acknowledged")
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
