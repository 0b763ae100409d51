"""The walk: find a batch without locks, write it in one short transaction, look around, go on; end cleanly at any bound."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from sqlalchemy import Connection, Engine

from db.batches.brakes import Brakes
from db.batches.size import next_size
from db.batches.target import Target, Value
from db.locks import Lock
from db.transactions import transact

log = structlog.get_logger(__name__)

FIRST_BATCH_ROWS = 500
HOLD_SECONDS = 0.25
# How often the place is stored while nothing is found.
RECORD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may take. `rest` is the pause after each batch, as a share of the time that the batch took."""

    rows: int
    seconds: float
    batch_rows: int
    batch_seconds: float
    rest: float = 0.0


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
    """What a walk has done so far. `held` is why it waits now, if it does."""

    rows: int
    batches: int
    place: Place
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Walked:
    """How a walk ended. `why` is "finished", or the bound, or the reason that `halt` gave; `held_seconds` it was braked."""

    progress: Progress
    why: str
    held_seconds: float


class Keeper(Protocol):
    """Stores rows elsewhere before they go."""

    def keep(self, keys: Sequence[Value]) -> None:
        """Store the rows for good; no transaction is open meanwhile."""

    def unchanged(self, connection: Connection, keys: Sequence[Value]) -> list[Value]:
        """Lock the rows in the transaction of their delete; return the keys of those that are still as they were stored."""


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
    brakes: Brakes,
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
    began, held_seconds = time.monotonic(), 0.0
    recorded_at = began
    state = Progress(0, 0, place)
    size = min(FIRST_BATCH_ROWS, limits.batch_rows)
    while True:
        if state.place.finished:
            return Walked(state, "finished", held_seconds)
        if why := halt() or _bound(limits, state.rows, time.monotonic() - began):
            return Walked(state, why, held_seconds)
        if held := brakes.reason(lock.session):
            progress(replace(state, held=held))
            time.sleep(HOLD_SECONDS)
            held_seconds += HOLD_SECONDS
            continue
        keys, next_place = find(engine, target, state.place, min(size, limits.rows - state.rows))
        if not keys:
            if record and time.monotonic() - recorded_at > RECORD_SECONDS:
                transact(engine, lambda connection, to=next_place: record(connection, to, 0))  # type: ignore[misc]
                recorded_at = time.monotonic()
            state = replace(state, place=next_place)
            progress(state)
            continue
        if keeper:
            keeper.keep(keys)
        started = time.monotonic()
        rows = transact(engine, lambda c, k=keys, to=next_place: _write(c, target, k, to, lock, record, keeper))  # type: ignore[misc]
        recorded_at = time.monotonic()
        took = recorded_at - started
        state = Progress(state.rows + rows, state.batches + 1, next_place)
        progress(state)
        if len(keys) == size:
            size = next_size(size, took, target_seconds=limits.batch_seconds, largest=limits.batch_rows)
        elif took > limits.batch_seconds:
            size = next_size(len(keys), took, target_seconds=limits.batch_seconds, largest=limits.batch_rows)
        if limits.rest:
            time.sleep(took * limits.rest)


def find(engine: Engine, target: Target, place: Place, rows: int) -> tuple[list[Value], Place]:
    """Return up to `rows` keys of the next window that has any row, and the place behind what was looked at."""
    assert place.after is not None  # noqa: S101 - the caller asked place.finished
    assert place.until is not None  # noqa: S101
    end = min(target.key.after(place.after, target.key.window), place.until)
    parameters = {"cutoff": place.cutoff, "after": place.after, "until": end}
    with engine.connect() as connection:
        keys = list(connection.execute(target.find, {**parameters, "rows": rows}).scalars())
        if len(keys) == rows:
            return keys, replace(place, after=keys[-1])
        if keys or end == place.until:
            return keys, replace(place, after=end)
        following = connection.execute(target.next_key, {"after": end, "until": place.until}).scalar()
    return keys, replace(place, after=place.until if following is None else target.key.before(following))


def _write(
    connection: Connection,
    target: Target,
    keys: Sequence[Value],
    place: Place,
    lock: Lock,
    record: Record | None,
    keeper: Keeper | None,
) -> int:
    lock.check(connection)
    chosen = keeper.unchanged(connection, keys) if keeper else keys
    rows = connection.execute(target.write, {"keys": chosen, "cutoff": place.cutoff}).rowcount if chosen else 0
    if record:
        record(connection, place, rows)
    return rows


def _bound(limits: Limits, rows: int, seconds: float) -> str | None:
    if rows >= limits.rows:
        return "its rows per run are done"
    if seconds >= limits.seconds:
        return "its time is up"
    return None
