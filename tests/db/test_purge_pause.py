"""The purge pause: InnoDB's purge is held back while a walk deletes, once, for a bounded time and number of rows."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import purge_pause, walk
from db.batches.place import start
from db.batches.purge_pause import FROM_ROWS, MOST_ROWS, PurgePause
from db.batches.throttle import Throttle
from db.locks import hold
from devstack.stack import Stack
from tests.db.test_batches import LIMITS, OLD, fill, left, purge, things

__all__ = ["things"]

Views = Callable[[], list[int]]


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def views(stack: Stack) -> Iterator[Views]:
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
    purge(things, limits=replace(LIMITS, purge_pause_seconds=60), progress=lambda _: seen.append(len(views())))
    assert set(seen) == {0}


def test_the_purge_waits_while_a_walk_deletes_and_goes_on_when_it_ends(
    things: Engine, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge_pause, "FROM_ROWS", 100)
    fill(things, range(1, 501))
    seen: list[int] = []
    purge(things, limits=replace(LIMITS, batch_rows=100, purge_pause_seconds=60), progress=lambda _: seen.append(len(views())))
    assert left(things) == []
    assert (seen[0], seen[-1], len(views())) == (0, 1, 0)


def test_a_change_keeps_no_purge_waiting(things: Engine, views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge_pause, "FROM_ROWS", 0)
    fill(things, range(1, 501))
    seen: list[int] = []
    target = replace(OLD, predicate="age < :cutoff AND touched < 1", change="touched = touched + 1")
    purge(things, target, replace(LIMITS, purge_pause_seconds=60), progress=lambda _: seen.append(len(views())))
    assert set(seen) == {0}


@pytest.mark.parametrize(("seconds", "rows"), [(10.0, FROM_ROWS + 1), (1.0, MOST_ROWS)], ids=["seconds", "rows"])
def test_a_pause_is_bounded_and_the_only_one(engine: Engine, views: Views, seconds: float, rows: int) -> None:
    clock = Clock()
    with closing(PurgePause(engine, 10.0, clock)) as pause:
        pause.update(FROM_ROWS - 1)
        assert len(views()) == 0
        pause.update(FROM_ROWS)
        pause.update(FROM_ROWS + 1)
        assert len(views()) == 1
        clock.now = seconds
        pause.update(rows)
        pause.update(rows + 1)
        assert len(views()) == 0


def test_a_walk_that_is_held_back_keeps_no_purge_waiting(things: Engine, views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge_pause, "FROM_ROWS", 100)
    monkeypatch.setattr(walk, "HOLD_SECONDS", 0.0)
    fill(things, range(1, 501))

    class Sometimes(Throttle):
        asked = 0

        def reason(self, _session: Connection) -> str | None:
            self.asked += 1
            return "someone is in a hurry" if self.asked % 4 == 0 else None

    seen: set[tuple[bool, int]] = set()
    limits = replace(LIMITS, batch_rows=100, purge_pause_seconds=60)
    with hold(things, "test") as lock:
        place = start(things, OLD, "2026-01-01 00:00:00")
        walk.walk(
            things, OLD, place, limits, lock, Sometimes(1, 1), progress=lambda p: seen.add((p.held is not None, len(views())))
        )
    assert seen == {(False, 0), (False, 1), (True, 0)}


def test_a_view_that_the_server_has_killed_harms_nothing(engine: Engine, views: Views) -> None:
    with closing(PurgePause(engine, 10.0)) as pause:
        pause.update(FROM_ROWS)
        (view,) = views()
        with engine.connect() as connection:
            connection.execute(text(f"KILL {view}"))
        pause.update(MOST_ROWS)
