"""Two beats and one Redis: whoever dies, hangs or loses its Redis, exactly one goes on, and nothing is skipped unseen."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from devstack.stack import Stack
from tests.processes import Process, wait_until

StartBeat = Callable[..., Process]
Count = Callable[[], int]

LOCK = "chat-workers:beat::lock"
DAILY = "chat-workers:beat:daily"


@pytest.fixture
def pair(start_beat: StartBeat, ticks: Count) -> tuple[Process, Process]:
    """A beat that works and one that stands by."""
    first = start_beat("first")
    wait_until(lambda: ticks() > 1, "beat sent its entry")
    second = start_beat("second")
    return first, second


def goes_on(ticks: Count) -> None:
    before = ticks()
    wait_until(lambda: ticks() > before + 1, "beat went on")


def standing_by(redis: Redis) -> None:
    """Wait until a second beat asks for the lock: its connection's last command is a SET."""
    wait_until(lambda: any(client["cmd"] == "set" for client in redis.client_list()), "the second beat stood by")


def entries(redis: Redis) -> set[bytes]:
    """The entries in beat's care."""
    return cast(set[bytes], redis.smembers("chat-workers:beat::statics"))


def test_one_that_stands_by_leaves_the_holders_schedule_alone_until_it_has_the_lock(
    start_beat: StartBeat, redis: Redis, ticks: Count
) -> None:
    """It may have an older beat_schedule.py, or lack the settings of a job."""
    first = start_beat("first")
    wait_until(lambda: ticks() > 0, "beat sent its entry")
    start_beat("second", BEAT_TEST_SCHEDULE="real")
    standing_by(redis)
    assert entries(redis) == {b"tick", b"daily"}
    first.stop()
    wait_until(lambda: b"notifications-drain" in entries(redis), "the second wrote its own")
    assert not entries(redis) & {b"tick", b"daily"}


def test_the_other_takes_over_when_the_holder_is_killed(pair: tuple[Process, Process], redis: Redis, ticks: Count) -> None:
    first, second = pair
    standing_by(redis)
    assert not second.said("this beat holds the lock")
    first.send(signal.SIGKILL)
    goes_on(ticks)
    assert second.said("this beat holds the lock")


def test_a_holder_that_was_paused_gives_way(pair: tuple[Process, Process], redis: Redis, ticks: Count) -> None:
    first, _ = pair
    standing_by(redis)
    taken_by = redis.get(LOCK)
    first.send(signal.SIGSTOP)
    wait_until(lambda: redis.get(LOCK) not in {None, taken_by}, "the second took over")
    first.send(signal.SIGCONT)
    wait_until(lambda: first.said("its lock was taken over"), "the first saw that it holds nothing")
    standing_by(redis)
    goes_on(ticks)


def test_sigterm_frees_the_lock_at_once(start_beat: StartBeat, redis: Redis, ticks: Count) -> None:
    beat = start_beat()
    wait_until(lambda: ticks() > 0, "beat sent its entry")
    assert beat.stop() == 0
    assert redis.get(LOCK) is None


def test_sigterm_ends_one_that_stands_by(pair: tuple[Process, Process], redis: Redis, ticks: Count) -> None:
    _, second = pair
    standing_by(redis)
    assert second.stop() == 0
    goes_on(ticks)


@pytest.mark.parametrize("noticed", [False, True])
def test_sigterm_ends_beat_while_redis_is_away(stack: Stack, start_beat: StartBeat, ticks: Count, noticed: bool) -> None:
    """Whether it still holds its lock, as it believes, or has noticed."""
    beat = start_beat()
    wait_until(lambda: ticks() > 0, "beat sent its entry")
    stack.redis.kill()
    try:
        if noticed:
            wait_until(lambda: beat.said("it cannot go on without Redis"), "it noticed")
        assert beat.stop() == 0
    finally:
        stack.redis.start()


def test_beat_outlives_an_outage_of_redis(stack: Stack, pair: tuple[Process, Process], ticks: Count) -> None:
    first, second = pair
    stack.redis.kill()
    for beat in (first, second):
        wait_until(lambda beat=beat: beat.said("it cannot go on without Redis"), "each beat noticed")  # type: ignore[misc]
    stack.redis.start()
    goes_on(ticks)
    assert first.runs
    assert second.runs
    assert not first.said("Traceback")


def test_a_beat_waits_for_a_redis_that_comes_later(stack: Stack, start_beat: StartBeat, ticks: Count) -> None:
    stack.redis.kill()
    beat = start_beat()
    wait_until(lambda: beat.said("it cannot go on without Redis"), "it noticed")
    stack.redis.start()
    goes_on(ticks)


def test_a_beat_that_cannot_take_its_lock_says_so_in_a_sentence_and_tries_again(
    redis: Redis, start_beat: StartBeat, ticks: Count
) -> None:
    # All that it writes before is hashes and sorted sets: only the lock is refused, as by a Redis that goes away just then.
    redis.acl_setuser("default", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all", "-set"])
    try:
        beat = start_beat()
        wait_until(lambda: beat.said("it cannot go on without Redis"), "it said so")
    finally:
        redis.acl_setuser("default", enabled=True, nopass=True, keys="*", channels="*", commands=["+@all"])
    goes_on(ticks)
    assert not beat.said("Traceback")


def test_what_fell_due_while_no_beat_ran_is_sent_once(
    start_beat: StartBeat, redis: Redis, ticks: Count, dailies: Count
) -> None:
    beat = start_beat()
    wait_until(lambda: ticks() > 0, "beat sent its entry")
    assert dailies() == 0
    beat.stop()
    meta = json.loads(str(redis.hget(DAILY, "meta"), "ascii"))  # type: ignore[arg-type]
    meta["last_run_at"]["year"] -= 4  # there is a 29 February then too
    redis.hset(DAILY, "meta", json.dumps(meta))
    start_beat("next")
    wait_until(lambda: dailies() > 0, "the missed run was sent")
    goes_on(ticks)
    assert dailies() == 1


@pytest.mark.parametrize("stopped", [False, True], ids=["while it runs", "before another starts"])
def test_a_clock_that_was_ahead_and_is_set_back_holds_no_entry_up(
    start_beat: StartBeat, ticks: Count, dailies: Count, tmp_path: Path, stopped: bool
) -> None:
    ahead = tmp_path / "ahead"
    ahead.touch()
    beat = start_beat(BEAT_TEST_AHEAD=str(ahead))
    wait_until(lambda: ticks() > 0, "beat sent its entry")
    if stopped:
        beat.stop()
    ahead.unlink()
    if stopped:
        start_beat("next")
    goes_on(ticks)
    assert dailies() == 0


def test_a_redis_that_lost_its_data_gets_the_schedule_back_and_beat_says_what_that_means(
    start_beat: StartBeat, redis: Redis, ticks: Count, dailies: Count
) -> None:
    beat = start_beat()
    wait_until(lambda: ticks() > 0, "beat sent its entry")
    redis.flushall()
    wait_until(lambda: beat.said("Redis knows of no earlier beat", times=2), "it said so")
    goes_on(ticks)
    assert dailies() == 0
    assert redis.exists(DAILY)


def test_a_bad_setting_ends_beat_at_once(start_beat: StartBeat) -> None:
    beat = start_beat(LOG_LEVEL="LOUD")
    assert beat.wait() == 2
    assert beat.lines.startswith("chat-workers: LOG_LEVEL ")
