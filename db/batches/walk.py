"""The walk: find a batch without locks, write it in one short transaction, look around, go on; end cleanly at any bound."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy import Connection, Engine

from db.batches.purge_pause import PurgePause
from db.batches.size import next_size
from db.batches.target import Target, Value
from db.batches.throttle import Throttle
from db.locks import Lock
from db.transactions import transact

FIRST_BATCH_ROWS = 500
# A batch is written in statements of so many rows, some 15 ms. Between two of them a batch that has had its time ends, however
# many rows it was meant to take.
STATEMENT_ROWS = 1000
HOLD_SECONDS = 0.25
# While one key in so many matches, batches are ranges of keys instead of lists.
DENSE = 2
# How often the place is stored while nothing is found.
RECORD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may take. `rest` is the pause after each batch, as a share of the time that the batch took; `turn_seconds`
    how long the server's purge is kept waiting at most (see `turns`), 0: never.
    """

    rows: int
    seconds: float
    batch_rows: int
    batch_seconds: float
    rest: float = 0.0
    turn_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk stands: all keys up to `after` are done, those beyond `until` are not looked at."""

    cutoff: object
    after: Value | None
    until: Value | None

    @property
    def finished(self) -> bool:
        return self.after is None or self.until is None or self.after >= self.until  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a walk has done so far. `skipped` rows were locked by others; `held` is why it waits now, if it does."""

    rows: int
    batches: int
    place: Place
    skipped: int = 0
    held_seconds: float = 0.0
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Walked:
    """How a walk ended. `why` is "finished", or the bound, or the reason that `halt` gave."""

    progress: Progress
    why: str


class Keeper(Protocol):
    """Stores rows elsewhere before they go."""

    def keep(self, keys: Sequence[Value]) -> None:
        """Store the rows for good; no transaction is open meanwhile."""

    def unchanged(self, connection: Connection, keys: Sequence[Value]) -> list[Value]:
        """Lock the rows in the transaction of their delete, but for those that others hold; return the keys of those that are
        still as they were stored.
        """


Record = Callable[[Connection, Place, int], None]


def start(engine: Engine, target: Target, cutoff: object) -> Place:
    """Return the place before the first row. Rows that come later than now are not part of the walk."""
    with engine.connect() as connection:
        first, last = connection.execute(target.bounds).one()
    return Place(cutoff, None if first is None else target.key.before(first), last)


def walk(
    engine: Engine,
    target: Target,
    place: Place,
    limits: Limits,
    lock: Lock,
    throttle: Throttle,
    *,
    record: Record | None = None,
    keeper: Keeper | None = None,
    halt: Callable[[], str | None] = lambda: None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Walked:
    """Write the target's rows from `place` on, batch by batch; return how it ended.

    `record` is called in the transaction of each batch with the place behind it and its rows, so that what it stores is true
    whenever the process dies. `halt` is asked between batches and names a reason to end. Raise LockLostError when another
    run may have taken over; no batch is written then.
    """
    with closing(PurgePause(engine, limits.turn_seconds if target.change is None else 0.0)) as turn:
        return _walk(engine, target, place, limits, lock, throttle, turn, record, keeper, halt, progress)


def _walk(
    engine: Engine,
    target: Target,
    place: Place,
    limits: Limits,
    lock: Lock,
    throttle: Throttle,
    turn: PurgePause,
    record: Record | None,
    keeper: Keeper | None,
    halt: Callable[[], str | None],
    progress: Callable[[Progress], None],
) -> Walked:
    began = recorded_at = time.monotonic()
    state = Progress(0, 0, place)
    size = min(FIRST_BATCH_ROWS, limits.batch_rows)
    dense = False
    while True:
        if state.place.finished:
            return Walked(state, "finished")
        if why := halt() or _bound(limits, state.rows, time.monotonic() - began):
            return Walked(state, why)
        if held := throttle.reason(lock.session):
            turn.close()
            progress(replace(state, held=held))
            time.sleep(HOLD_SECONDS)
            state = replace(state, held_seconds=state.held_seconds + HOLD_SECONDS)
            continue
        turn.go_on(state.rows)
        room = min(size, limits.rows - state.rows)
        if dense and not keeper:
            # Where most rows match, the next ones are not looked at first: half the reading, and as exact.
            keys, behind = None, replace(state.place, after=_ahead(target, state.place, room))
        else:
            keys, behind = find(engine, target, state.place, room)
        if keys == []:
            if record and time.monotonic() - recorded_at > RECORD_SECONDS:
                transact(engine, lambda connection, to=behind: record(connection, to, 0))  # type: ignore[misc]
                recorded_at = time.monotonic()
            state = replace(state, place=behind)
            progress(state)
            continue
        if keeper and keys:
            keeper.keep(keys)
        batch = _Batch(target, keys, state.place, behind, limits.batch_seconds, lock, record, keeper)
        started = time.monotonic()
        done = transact(engine, batch.write)
        recorded_at = time.monotonic()
        took = recorded_at - started
        dense = done.rows * DENSE >= done.span
        state = replace(
            state,
            rows=state.rows + done.rows,
            batches=state.batches + 1,
            place=done.place,
            skipped=state.skipped + done.skipped,
        )
        progress(state)
        if done.tried == size or took > limits.batch_seconds:
            size = next_size(done.tried, took, target_seconds=limits.batch_seconds, largest=limits.batch_rows)
        if limits.rest:
            time.sleep(took * limits.rest)


def find(engine: Engine, target: Target, place: Place, rows: int) -> tuple[list[Value], Place]:
    """Return up to `rows` keys of the next window that has any row, and the place behind what was looked at."""
    end = _ahead(target, place, target.key.window)
    parameters = {"cutoff": place.cutoff, "after": place.after, "until": end}
    with engine.connect() as connection:
        keys = list(connection.execute(target.find, {**parameters, "rows": rows}).scalars())
        if len(keys) == rows:
            return keys, replace(place, after=keys[-1])
        if keys or end == place.until:
            return keys, replace(place, after=end)
        following = connection.execute(target.next_key, {"after": end, "until": place.until}).scalar()
    return keys, replace(place, after=place.until if following is None else target.key.before(following))


def _ahead(target: Target, place: Place, steps: int) -> Value:
    """Return the key so many steps on, or the last one."""
    assert place.after is not None  # noqa: S101 - the caller asked place.finished
    assert place.until is not None  # noqa: S101
    return min(target.key.after(place.after, steps), place.until)


@dataclass(frozen=True, slots=True)
class _Done:
    """What one transaction did: it tried so many keys, the last of them `span` steps on, and came to `place`."""

    rows: int
    skipped: int
    tried: int
    span: int
    place: Place


@dataclass(slots=True)
class _Batch:
    """What one transaction does; it may be run twice. `keys` are those found, or None for all between the places.

    Rows that others hold are rare, and to look for them first takes a tenth of the time: so where the server can be told to
    wait for no lock at all, which is MariaDB, they are looked for only when the batch has met one and is tried again.
    """

    target: Target
    keys: list[Value] | None
    before: Place
    behind: Place
    seconds: float
    lock: Lock
    record: Record | None
    keeper: Keeper | None
    met_one: bool = False

    def write(self, connection: Connection) -> _Done:
        """Write statement by statement until all is done or the time is up; there is always time for the first."""
        self.lock.check(connection)
        target, cutoff, ends_at = self.target, self.behind.cutoff, time.monotonic() + self.seconds
        place, rows, tried, span = self.before, 0, 0, 0
        eager = not self.met_one and getattr(connection.dialect, "is_mariadb", False)
        self.met_one = True  # if this is run again
        look_back = not eager and (self.keys is None or not target.key.unique)
        for keys, until in self._statements():
            if tried and time.monotonic() > ends_at:
                break
            if keys is None:
                wrote = target.write_range(connection, place.after, until, cutoff, eager=eager)
                tried = span = target.key.steps(self.before.after, until)
            else:
                kept = self.keeper.unchanged(connection, keys) if self.keeper else keys
                wrote = target.write_keys(connection, kept, cutoff, eager=eager)
                look_back = look_back or wrote < len(keys)
                tried, span = tried + len(keys), target.key.steps(self.before.after, keys[-1])
            rows += wrote
            place = replace(place, after=until)
        skipped = target.still_there(connection, self.before.after, place.after, cutoff) if look_back else 0
        if self.record:
            self.record(connection, place, rows)
        return _Done(rows, skipped, tried, span, place)

    def _statements(self) -> Iterator[tuple[list[Value] | None, Value | None]]:
        """Yield the keys of each statement, None for all in its range, and the key that it comes to."""
        if self.keys is None:
            place = self.before
            while place.after != self.behind.after:
                place = replace(place, after=_ahead(self.target, replace(place, until=self.behind.after), STATEMENT_ROWS))
                yield None, place.after
            return
        for first in range(0, len(self.keys), STATEMENT_ROWS):
            keys = self.keys[first : first + STATEMENT_ROWS]
            yield keys, keys[-1] if first + STATEMENT_ROWS < len(self.keys) else self.behind.after


def _bound(limits: Limits, rows: int, seconds: float) -> str | None:
    if rows >= limits.rows:
        return "its rows per run are done"
    if seconds >= limits.seconds:
        return "its time is up"
    return None
