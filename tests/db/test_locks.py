"""A named lock is held by one session at a time and is free again however that session ends."""

import time

import pytest
from sqlalchemy import Engine, text

from db.locks import IDLE_SECONDS, LONGEST_NAME, LockedError, LockLostError, hold, is_held, lock_name
from tests.processes import wait_until


def test_the_second_to_ask_is_refused_at_once(engine: Engine) -> None:
    with hold(engine, "job"), pytest.raises(LockedError, match=r"^job is already running"), hold(engine, "job"):
        pass


def test_it_is_free_again_at_the_end(engine: Engine) -> None:
    with hold(engine, "job"):
        assert is_held(engine, "job")
    assert not is_held(engine, "job")
    with hold(engine, "job"):
        pass


def test_it_is_free_again_when_its_holder_is_heard_of_no_more(engine: Engine) -> None:
    """A host without power closes no connection: its session stays open, and silent."""
    with hold(engine, "job", idle_seconds=1) as lock:
        while is_held(engine, "job"):
            time.sleep(0.05)
        with engine.connect() as work, pytest.raises(LockLostError):
            lock.check(work)
        with hold(engine, "job"):
            pass


def test_it_is_held_for_as_long_as_its_holder_is_heard_of(engine: Engine) -> None:
    with hold(engine, "job", idle_seconds=2) as lock:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            lock.session.execute(text("SELECT 1"))
            time.sleep(0.1)
        assert is_held(engine, "job")


def test_no_holder_may_be_silent_for_long(engine: Engine) -> None:
    with hold(engine, "job") as lock:
        assert lock.session.execute(text("SELECT @@SESSION.wait_timeout")).scalar() == IDLE_SECONDS


def test_a_long_name_fits_into_what_mysql_takes(engine: Engine) -> None:
    name = "x" * 100
    assert len(lock_name(engine, name)) <= LONGEST_NAME
    with hold(engine, name), pytest.raises(LockedError), hold(engine, name):
        pass


def test_a_write_is_refused_once_the_session_of_the_lock_was_killed(engine: Engine) -> None:
    with hold(engine, "job") as lock, engine.connect() as work:
        lock.check(work)
        work.execute(text(f"KILL {lock.holder}"))
        # The server answers before the session has ended.
        wait_until(lambda: not is_held(engine, "job"), "the killed session's lock was free", every=0.005)
        with pytest.raises(LockLostError, match="was lost with its connection"):
            lock.check(work)
