"""Entries that an operator has paused: no beat sends them, whatever restarts, and a resumed one is sent once."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis

from beat_schedule import BEAT_SCHEDULE
from devstack.stack import Stack
from tests.processes import Process, wait_until
from workers import paused_entries
from workers.cli import cli

StartBeat = Callable[..., Process]
Count = Callable[[], int]
NAME = "retention-worker-tables"


def schedule(*arguments: str) -> Any:
    done = CliRunner().invoke(cli, ["schedule", *arguments, "--json"])
    return json.loads(done.stdout)


def overdue(redis: Redis, key: str) -> None:
    meta = json.loads(str(redis.hget(key, "meta"), "ascii"))  # type: ignore[arg-type]
    meta["last_run_at"]["year"] -= 4
    redis.hset(key, "meta", json.dumps(meta))


def test_a_pause_survives_beat_and_redis_and_what_fell_due_is_sent_once_when_it_is_resumed(
    stack: Stack, start_beat: StartBeat, redis: Redis, ticks: Count, dailies: Count
) -> None:
    paused_entries.pause(redis, "daily", "ana@ops", "the disk is full", None)
    beat = start_beat()
    wait_until(lambda: ticks() > 0, "beat sent its other entry")
    beat.stop()
    overdue(redis, "chat-workers:beat:daily")
    stack.redis.kill()
    stack.redis.start()
    start_beat("next")
    before = ticks()
    wait_until(lambda: ticks() > before + 2, "beat ticked over the due time")
    assert dailies() == 0
    assert paused_entries.resume(redis, "daily")
    wait_until(lambda: dailies() > 0, "what fell due was sent")
    before = ticks()
    wait_until(lambda: ticks() > before + 2, "beat went on")
    assert dailies() == 1


def test_a_pause_ends_by_itself(start_beat: StartBeat, redis: Redis, ticks: Count) -> None:
    redis.hset(paused_entries.PAUSED, "tick", json.dumps({"by": "ana@ops", "why": "", "until": "2020-01-01T00:00:00+00:00"}))
    start_beat()
    wait_until(lambda: ticks() > 0, "beat sent the entry")


@pytest.mark.usefixtures("environment", "redis")
def test_the_command_line_pauses_lists_and_resumes() -> None:
    assert NAME in BEAT_SCHEDULE
    assert schedule("pause", NAME, "--why", "the disk is full", "--for", "2h") == {"paused": [NAME], "seconds": 7200}
    row = next(row for row in schedule("list") if row["entry"] == NAME)
    assert (row["beat_entry_paused"], row["beat_entry_late_seconds"], row["paused"]["why"]) == (True, 0, "the disk is full")
    assert "the disk is full" in CliRunner().invoke(cli, ["schedule", "list"]).stdout
    assert schedule("resume", NAME) == {"resumed": [NAME]}
    assert schedule("resume", NAME) == {"resumed": []}
