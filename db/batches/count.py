"""Count the rows that a walk would find, and their ages: in windows, without locks, for a bounded time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine

from db.batches.place import Place
from db.batches.target import Target


@dataclass(frozen=True, slots=True)
class Count:
    """`complete` is False if the time was up before the end: then there may be more rows, older and newer ones."""

    rows: int
    oldest: Any
    newest: Any
    complete: bool


# Counting returns one row a window whatever it holds, so its windows are wider than those of a walk.
WIDER = 10


def count(
    engine: Engine,
    target: Target,
    place: Place,
    age: str,
    *,
    seconds: float,
    progress: Callable[[Place, int], None] = lambda _place, _rows: None,
) -> Count:
    """Count the target's rows from `place` on, by SQL `age`. Each query reads one window of the primary key at most."""
    deadline = time.monotonic() + seconds
    found = Count(0, None, None, complete=False)
    statement = target.count(age)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not place.finished:
            if time.monotonic() > deadline:
                return found
            end = place.ahead(target, WIDER * target.key.window)
            parameters = {"cutoff": place.cutoff, "after": place.after, "until": end.after}
            rows, oldest, newest = connection.execute(statement, parameters).one()
            if rows:
                found = Count(
                    found.rows + rows,
                    oldest if found.oldest is None else min(oldest, found.oldest),
                    newest if found.newest is None else max(newest, found.newest),
                    complete=False,
                )
            elif not end.finished:
                following = connection.execute(target.next_key, {"after": end.after, "until": place.until}).scalar()
                end = replace(place, after=place.until if following is None else target.key.before(following))
            place = end
            progress(place, found.rows)
    return replace(found, complete=True)
