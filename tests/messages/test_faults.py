"""What lies about in Redis stops no good message either."""

import json
import subprocess
import sys
from typing import Any

import pytest
from redis import Redis

from devstack.folder import PROJECT
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
    assert worker.lines.count("was refused") - lines <= FLOOD // 100  # 20, then one each 3 s of a busy minute


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
    worker.wait_until(lambda: len(kept(worker.redis)) == len(poison), "what went back to its queue was read there and refused")
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
