"""Entries that an operator has paused: no beat sends them, whatever restarts, and a resumed one is sent once."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis
from sqlalchemy import Engine, text

from beat_schedule import BEAT_SCHEDULE
from devstack.stack import Stack
from tasks import pause
from tests.processes import Process, wait_until
from tests.trickle import GREETING, trickling
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


def test_a_pause_survives_beat_and_redis_s_data_and_what_fell_due_is_sent_once_when_it_is_resumed(
    chat: Engine, start_beat: StartBeat, redis: Redis, ticks: Count, dailies: Count
) -> None:
    with chat.begin() as connection:
        pause.pause(connection, ["beat:daily"], "ana@ops", "the disk is full")
    start_beat().stop()
    redis.flushdb()
    beat = start_beat("that finds an empty Redis")
    wait_until(lambda: ticks() > 0, "beat sent its other entry")
    beat.stop()
    overdue(redis, "chat-workers:beat:daily")
    start_beat("next")
    before = ticks()
    wait_until(lambda: ticks() > before + 2, "beat ticked over the due time")
    assert dailies() == 0
    with chat.begin() as connection:
        assert pause.resume(connection, ["beat:daily"])
    wait_until(lambda: dailies() > 0, "what fell due was sent")
    before = ticks()
    wait_until(lambda: ticks() > before + 2, "beat went on")
    assert dailies() == 1


def test_a_pause_ends_by_itself(chat: Engine, start_beat: StartBeat, ticks: Count) -> None:
    with chat.begin() as connection:
        pause.pause(connection, ["beat:tick"], "ana@ops", "", timedelta(hours=1))
        connection.execute(text("UPDATE worker_pauses SET paused_until = NOW(3)"))
    start_beat()
    wait_until(lambda: ticks() > 0, "beat sent the entry")


@pytest.mark.usefixtures("chat")
def test_a_mysql_that_is_silent_stops_no_beat_and_ends_no_pause(
    stack: Stack, start_beat: StartBeat, redis: Redis, ticks: Count, dailies: Count
) -> None:
    redis.hset(paused_entries.PAUSED, "daily", json.dumps({"by": "ana@ops", "why": "", "until": None}))
    stack.mariadb.pause()
    try:
        start_beat()
        wait_until(lambda: ticks() > 0, "beat sent its entry")
        overdue(redis, "chat-workers:beat:daily")
        before = ticks()
        wait_until(lambda: ticks() > before + 2, "beat went on")
        assert dailies() == 0
    finally:
        stack.mariadb.resume()


@pytest.mark.usefixtures("chat", "redis")
def test_the_command_line_pauses_lists_and_resumes() -> None:
    assert NAME in BEAT_SCHEDULE
    assert schedule("pause", NAME, "--why", "the disk is full", "--for", "2h") == {"paused": [NAME], "seconds": 7200}
    row = next(row for row in schedule("list") if row["entry"] == NAME)
    assert (row["beat_entry_paused"], row["beat_entry_late_seconds"], row["paused"]["why"]) == (True, 0, "the disk is full")
    assert "the disk is full" in CliRunner().invoke(cli, ["schedule", "list"]).stdout
    assert schedule("resume", NAME) == {"resumed": [NAME]}
    assert schedule("resume", NAME) == {"resumed": []}


def test_the_clock_goes_on_while_mysql_answers_a_byte_at_a_time(start_beat: StartBeat, ticks: Count) -> None:
    """Each byte comes before a client's timeout."""
    with trickling(GREETING) as server:
        start_beat(DATABASE_URL=f"mysql+pymysql://a:b@127.0.0.1:{server.address[1]}/x")
        wait_until(lambda: ticks() >= 3, "it ticks", 60)
