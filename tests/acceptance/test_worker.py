"""A real worker keeps its promises while it, Redis, MariaDB and the provider come and go."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from devstack.emulators.client import Emulator, Fault
from devstack.folder import PROJECT
from devstack.stack import Stack
from tests.acceptance.audit import audit
from tests.acceptance.conftest import Send
from tests.processes import Process, wait_until

StartWorker = Callable[..., Process]
Nudge = Callable[[], None]
Tick = Callable[[], None]
Load = Callable[[int], None]

# As many rows as can be under way in one child: what a kill may repeat.
WINDOW_ROWS = 3 * 500


def settled(engine: Engine) -> bool:
    with engine.connect() as connection:
        return not connection.execute(text("SELECT 1 FROM chat_notifications WHERE delivery_status <> 'SENT' LIMIT 1")).scalar()


def sent(emulator: Emulator) -> int:
    return emulator.stats().count("accepted")


def end_leases(engine: Engine) -> None:
    """Let the lease time of dead workers pass."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE worker_deliveries SET due_at = NOW(3) WHERE lease IS NOT NULL"))


def test_a_nudge_by_name_drains_the_table(
    chat: Engine, start_worker: StartWorker, nudge: Nudge, load: Load, emulator: Emulator
) -> None:
    load(1000)
    start_worker()
    nudge()
    wait_until(lambda: settled(chat), "all rows were sent")
    counted = audit(chat, emulator)
    assert (counted.lost, counted.repeated, counted.unfinished) == (0, 0, 0)


def test_a_child_has_its_connection_to_the_database_before_its_first_drain(chat: Engine, start_worker: StartWorker) -> None:
    def sessions() -> set[int]:
        with chat.connect() as connection:
            return {*connection.execute(text("SELECT id FROM information_schema.processlist")).scalars()}

    before = sessions()
    start_worker()
    wait_until(lambda: bool(sessions() - before), "a child was connected")


@pytest.mark.parametrize("path", ["", "/nowhere.json"], ids=["not set", "no such file"])
def test_a_worker_without_credentials_stops_at_its_start_with_a_sentence(environment: dict[str, str], path: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-Q", "notifications"],
        env={**os.environ, **environment, "GOOGLE_APPLICATION_CREDENTIALS": path},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("chat-workers: GOOGLE_APPLICATION_CREDENTIALS ")


def test_a_worker_takes_from_its_own_queue_only(
    chat: Engine, redis: Redis, send: Send, start_worker: StartWorker, nudge: Nudge, load: Load
) -> None:
    start_worker()
    send("tasks.attachments.scan", 1)
    load(1)
    nudge()
    wait_until(lambda: settled(chat), "the worker had taken what is its own")
    assert redis.llen("attachments") == 1
    assert [redis.llen(name) for name in ("notifications", "housekeeping", "backups")] == [0, 0, 0]


def test_sigterm_in_mid_drain_ends_soon_and_repeats_nothing(
    chat: Engine, start_worker: StartWorker, nudge: Nudge, tick: Tick, load: Load, emulator: Emulator
) -> None:
    load(6000)
    worker = start_worker()
    nudge()
    wait_until(lambda: sent(emulator) > 500, "the drain was under way")
    assert worker.stop() == 0
    assert not settled(chat)
    with chat.connect() as connection:
        leased = connection.execute(text("SELECT COUNT(*) FROM worker_deliveries WHERE lease IS NOT NULL")).scalar()
    assert leased == 0
    start_worker("next")  # which finds the nudge that the stopped drain left for the rest
    _wait_until_sent(chat, tick)
    counted = audit(chat, emulator)
    assert (counted.lost, counted.repeated, counted.unfinished) == (0, 0, 0)


def test_a_supervisor_that_signals_the_whole_group_repeats_nothing(
    chat: Engine, start_worker: StartWorker, nudge: Nudge, tick: Tick, load: Load, emulator: Emulator
) -> None:
    """honcho and systemd send SIGTERM to the pool's children too."""
    load(6000)
    worker = start_worker()
    nudge()
    wait_until(lambda: sent(emulator) > 500, "the drain was under way")
    worker.send_all(signal.SIGTERM)
    assert worker.wait() == 0
    assert not settled(chat)
    start_worker("next")
    _wait_until_sent(chat, tick)
    counted = audit(chat, emulator)
    assert (counted.lost, counted.repeated, counted.unfinished) == (0, 0, 0)


def test_sigkill_of_everything_loses_nothing_and_repeats_only_what_was_under_way(
    chat: Engine, start_worker: StartWorker, nudge: Nudge, tick: Tick, load: Load, emulator: Emulator
) -> None:
    load(6000)
    worker = start_worker(processes=1)
    nudge()
    wait_until(lambda: sent(emulator) > 1000, "the drain was under way")
    worker.kill()
    with chat.connect() as connection:
        leased = connection.execute(text("SELECT COUNT(*) FROM worker_deliveries WHERE lease IS NOT NULL")).scalar_one()
    assert 0 < leased <= WINDOW_ROWS
    end_leases(chat)
    start_worker("next")
    _wait_until_sent(chat, tick)
    counted = audit(chat, emulator)
    assert (counted.lost, counted.unfinished) == (0, 0)
    assert counted.repeated <= 3 * leased


def test_a_killed_child_is_replaced_and_its_task_runs_again(
    chat: Engine, start_worker: StartWorker, nudge: Nudge, tick: Tick, load: Load, emulator: Emulator
) -> None:
    load(4000)
    worker = start_worker(processes=1)
    nudge()
    wait_until(lambda: sent(emulator) > 500, "the drain was under way")
    os.kill(worker.children[0], signal.SIGKILL)
    end_leases(chat)
    _wait_until_sent(chat, tick)
    assert audit(chat, emulator).lost == 0


def test_redis_may_restart_under_load(
    chat: Engine, stack: Stack, start_worker: StartWorker, nudge: Nudge, tick: Tick, load: Load, emulator: Emulator
) -> None:
    load(3000)
    start_worker()
    nudge()
    wait_until(lambda: sent(emulator) > 300, "the drain was under way")
    stack.redis.restart()
    load(500)
    _wait_until_sent(chat, tick)
    counted = audit(chat, emulator)
    assert (counted.lost, counted.unfinished) == (0, 0)


def test_mariadb_may_be_killed_and_restarted_under_load(
    chat: Engine, stack: Stack, start_worker: StartWorker, nudge: Nudge, tick: Tick, load: Load, emulator: Emulator
) -> None:
    load(4000)
    start_worker()
    nudge()
    wait_until(lambda: sent(emulator) > 500, "the drain was under way")
    stack.mariadb.kill()
    stack.mariadb.start()
    end_leases(chat)
    _wait_until_sent(chat, tick)
    counted = audit(chat, emulator)
    assert (counted.lost, counted.unfinished) == (0, 0)


def test_a_provider_that_is_away_burns_few_attempts_and_is_found_again(
    chat: Engine, stack: Stack, start_worker: StartWorker, nudge: Nudge, tick: Tick, load: Load, emulator: Emulator
) -> None:
    emulator.inject(Fault(kind="reset"))
    load(2000)
    start_worker()
    nudge()
    wait_until(lambda: _breaker_is_open(chat), "the breaker opened")
    with chat.connect() as connection:
        untouched = connection.execute(text("SELECT COUNT(*) FROM chat_notifications WHERE delivery_status = 'PENDING'"))
        assert untouched.scalar_one() > 0
    emulator.clear()
    _wait_until_sent(chat, tick)
    counted = audit(chat, emulator)
    assert (counted.lost, counted.repeated, counted.unfinished) == (0, 0, 0)


def _breaker_is_open(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT 1 FROM worker_providers WHERE opened_at IS NOT NULL")).scalar())


def _wait_until_sent(engine: Engine, tick: Tick) -> None:
    def ticked() -> bool:
        tick()
        return settled(engine)

    wait_until(ticked, "all rows were sent", every=0.5)
