"""The walk: find a batch without locks, write it in one short transaction, ask whether to go on; end cleanly at any bound."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from db.batches.batch import Batch, Keeper, Record
from db.batches.place import find, start
from db.batches.target import Target
from db.batches.throttle import Throttle
from db.locks import Lock
from db.transactions import transact

FIRST_BATCH_ROWS = 500
SMALLEST_BATCH_ROWS = 50
HOLD_SECONDS = 0.25
# While one key in so many matches, batches are ranges of keys, which need not be read before they are written: that saves half
# the reading in the first purge of a table. Elsewhere a list keeps the write from touching, and locking, rows that stay.
DENSE = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run. The pause after a batch is its duration times `rest`."""

    rows: int
    seconds: float
    batch_rows: int
    batch_seconds: float
    rest: float = 0.0

    def reached(self, rows: int, seconds: float) -> str | None:
        """Return which bound a run has reached, None if neither."""
        if rows >= self.rows:
            return "its rows per run are done"
        return "its time is up" if seconds >= self.seconds else None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a walk has done so far. `skipped` rows were locked by others; `held` is why it waits now, if it does.

    `why` it ended: "finished", or the bound, or the reason that `halt` gave.
    """

    rows: int = 0
    batches: int = 0
    skipped: int = 0
    held_seconds: float = 0.0
    held: str | None = None
    why: str = ""


def walk(
    engine: Engine,
    target: Target,
    cutoff: object,
    limits: Limits,
    lock: Lock,
    throttle: Throttle,
    *,
    record: Record | None = None,
    keeper: Keeper | None = None,
    halt: Callable[[], str | None] = lambda: None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Write the target's rows that there are now, batch by batch, from the first key on; return how it ended.

    `record` is called in the transaction of each batch, so what it counts is true whenever the process dies. `halt` is asked
    between batches and names a reason to end. Raise LockLostError when another run may have taken over; no batch is written
    then.
    """
    began = time.monotonic()
    state, place = Progress(), start(engine, target, cutoff)
    size = min(SMALLEST_BATCH_ROWS if keeper else FIRST_BATCH_ROWS, limits.batch_rows)  # rows to keep may be megabytes each
    dense = False
    while True:
        if place.finished:
            return replace(state, why="finished")
        if why := halt() or limits.reached(state.rows, time.monotonic() - began):
            return replace(state, why=why)
        if held := throttle.reason(lock.session):
            progress(replace(state, held=held))
            time.sleep(HOLD_SECONDS)
            state = replace(state, held_seconds=state.held_seconds + HOLD_SECONDS)
            continue
        rows = min(size, limits.rows - state.rows)
        if dense and not keeper:
            keys, behind = None, place.ahead(target, rows)
        else:
            keys, behind = find(engine, target, place, rows)
        if keys == []:
            place = behind
            progress(state)
            continue
        if keeper and keys:
            keeper.keep(keys)
        batch = Batch(target, keys, place, behind, limits.batch_seconds, lock, record, keeper)
        started = time.monotonic()
        written = transact(engine, batch.write)
        took = time.monotonic() - started
        dense = written.rows * DENSE >= target.key.steps(place.after, written.place.after)
        place, skipped = written.place, state.skipped + written.skipped
        state = replace(state, rows=state.rows + written.rows, batches=state.batches + 1, skipped=skipped)
        progress(state)
        if written.tried == size or took > limits.batch_seconds:
            size = next_size(written.tried, took, limits)
        if limits.rest:
            time.sleep(took * limits.rest)


def next_size(size: int, seconds: float, limits: Limits) -> int:
    """Given a batch of `size` rows that took `seconds`, return how many rows should take what a transaction may.

    One slow moment halves the size at most, one fast batch doubles it at most.
    """
    wanted = size * min(max(limits.batch_seconds / max(seconds, 0.001), 0.5), 2.0)
    return int(min(max(wanted, SMALLEST_BATCH_ROWS), limits.batch_rows))
