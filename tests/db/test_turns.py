"""Turns: the server's purge waits while a walk deletes, for a bounded time, and then the walk waits for the purge."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import walk as walking
from db.batches.brakes import Brakes
from db.batches.turns import FEW_TRANSACTIONS, HISTORY, Turns
from db.locks import hold
from devstack.stack import Stack
from tests.db.test_batches import LIMITS, OLD, fill, left, purge, things

__all__ = ["things"]

Views = Callable[[], list[int]]
WAITS = "the server clears away what was deleted"


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def session(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def views(stack: Stack) -> Iterator[Callable[[], list[int]]]:
    """What returns the sessions that keep the purge waiting: those with an open transaction of repeatable reads."""
    with stack.mariadb.root() as cursor:

        def read() -> list[int]:
            time.sleep(0.11)  # the server answers from a copy that it makes ten times a second at most
            cursor.execute(
                "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_isolation_level LIKE 'REP%'"
            )
            return [row[0] for row in cursor.fetchall()]

        yield read


def test_a_walk_of_few_rows_opens_no_view(things: Engine, views: Views) -> None:
    fill(things, range(1, 501))
    seen: list[int] = []
    purge(things, limits=replace(LIMITS, turn_seconds=60), progress=lambda _: seen.append(len(views())))
    assert set(seen) == {0}


def test_the_purge_waits_while_a_walk_deletes_and_goes_on_when_it_ends(
    things: Engine, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "TURNS_FROM_ROWS", 100)
    fill(things, range(1, 501))
    seen: list[int] = []
    purge(things, limits=replace(LIMITS, batch_rows=100, turn_seconds=60), progress=lambda _: seen.append(len(views())))
    assert left(things) == []
    assert (seen[0], seen[-1], len(views())) == (0, 1, 0)


def test_a_change_keeps_no_purge_waiting(things: Engine, views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "TURNS_FROM_ROWS", 0)
    fill(things, range(1, 501))
    seen: list[int] = []
    target = replace(OLD, predicate="age < :cutoff AND touched < 1", change="touched = touched + 1")
    purge(things, target, replace(LIMITS, turn_seconds=60), progress=lambda _: seen.append(len(views())))
    assert set(seen) == {0}


def test_turns_are_taken_and_each_is_bounded(things: Engine, session: Connection, views: Views) -> None:
    clock = Clock()
    with closing(Turns(things, 10.0, clock)) as turns:
        assert turns.reason(session) is None
        assert len(views()) == 1
        clock.now = 9.9
        assert turns.reason(session) is None
        clock.now = 10.0
        assert turns.reason(session) == WAITS
        assert len(views()) == 0
        clock.now = 20.0
        assert turns.reason(session) is None
        assert len(views()) == 1
    assert len(views()) == 0


def test_the_walk_goes_on_once_little_is_left_to_purge(things: Engine, session: Connection) -> None:
    if session.execute(HISTORY).one_or_none() is None:
        return  # MySQL does not tell without PROCESS: the purge has its full turn
    clock = Clock()
    with closing(Turns(things, 10.0, clock)) as turns:
        turns.reason(session)
        fill(things, range(1, 10))
        clock.now = 10.0
        assert turns.reason(session) == WAITS
        waited = threading.Event()
        while int(session.execute(HISTORY).one()[1]) > FEW_TRANSACTIONS:
            waited.wait(0.05)
        clock.now = 10.5
        assert turns.reason(session) is None


def test_a_walk_that_is_held_back_keeps_no_purge_waiting(things: Engine, views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "TURNS_FROM_ROWS", 100)
    monkeypatch.setattr(walking, "HOLD_SECONDS", 0.0)
    fill(things, range(1, 501))

    class Sometimes(Brakes):
        asked = 0

        def reason(self, _session: Connection) -> str | None:
            self.asked += 1
            return "someone is in a hurry" if self.asked % 4 == 0 else None

    seen: set[tuple[bool, int]] = set()
    limits = replace(LIMITS, batch_rows=100, turn_seconds=60)
    with hold(things, "test") as lock:
        place = walking.start(things, OLD, "2026-01-01 00:00:00")
        walking.walk(
            things, OLD, place, limits, lock, Sometimes(1, 1), progress=lambda p: seen.add((p.held is not None, len(views())))
        )
    assert seen >= {(False, 0), (False, 1), (True, 0)}
    assert (True, 1) not in seen


def test_a_view_that_the_server_has_killed_harms_nothing(things: Engine, session: Connection, views: Views) -> None:
    clock = Clock()
    with closing(Turns(things, 10.0, clock)) as turns:
        turns.reason(session)
        (view,) = views()
        session.execute(text(f"KILL {view}"))
        clock.now = 10.0
        assert turns.reason(session) == WAITS
        clock.now = 20.0
        assert turns.reason(session) is None
