"""Count the rows that a walk would find, and their ages: in windows, without locks, for a bounded time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from db.batches.place import skip_gap, start
from db.batches.target import Target

# Counting returns one row a window whatever it holds, so its windows are wider than those of a walk.
WIDER = 10


@dataclass(frozen=True, slots=True)
class Count:
    """`complete` is False if the time was up before the end: then there may be more rows, older and newer ones."""

    rows: int
    oldest: Any
    newest: Any
    complete: bool


def count(
    engine: Engine,
    target: Target,
    cutoff: object,
    age: str,
    *,
    seconds: float,
    progress: Callable[[int], None] = lambda _: None,
) -> Count:
    """Count the target's rows, their age by SQL `age`. Each query reads one window of the primary key at most."""
    deadline = time.monotonic() + seconds
    place, rows, ages = start(engine, target, cutoff), 0, list[Any]()
    statement = target.count(age)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not place.finished and time.monotonic() <= deadline:
            end = place.ahead(target, WIDER * target.key.window)
            parameters = {"cutoff": place.cutoff, "after": place.after, "until": end.after}
            found, *span = connection.execute(statement, parameters).one()
            rows += found
            ages += filter(None, span)
            place = end if found else skip_gap(connection, target, end)
            progress(rows)
    return Count(rows, min(ages, default=None), max(ages, default=None), place.finished)
