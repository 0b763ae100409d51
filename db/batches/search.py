"""The search for the next batch: a list of matching keys, or, where most rows match, simply the next range of keys.

A range need not be read before it is written: its predicate is in the write. That saves half the reading where most rows match,
as in the first purge of a table; where few match, a list keeps the write from touching, and locking, rows that stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from db.batches.place import Place
from db.batches.target import Target, Value

# While one key in so many matches, batches are ranges of keys.
DENSE = 2


@dataclass(slots=True)
class Search:
    """Finds the batches of one walk. `only_lists` never takes a range: the rows must be known before they are written."""

    engine: Engine
    target: Target
    only_lists: bool
    _dense: bool = False

    def next(self, place: Place, rows: int) -> tuple[Sequence[Value] | None, Place]:
        """Return up to `rows` keys and the place behind them. None stands for every matching row up to that place; an empty
        list means that there are none up to it.
        """
        if self._dense and not self.only_lists:
            return None, place.ahead(self.target, rows)
        return find(self.engine, self.target, place, rows)

    def learn(self, rows: int, span: int) -> None:
        """Note that the last batch wrote `rows` rows out of `span` keys."""
        self._dense = rows * DENSE >= span


def find(engine: Engine, target: Target, place: Place, rows: int) -> tuple[list[Value], Place]:
    """Return up to `rows` keys of the next window that has any row, and the place behind the part that was searched."""
    end = place.ahead(target, target.key.window)
    parameters = {"cutoff": place.cutoff, "after": place.after, "until": end.after}
    with engine.connect() as connection:
        keys = list(connection.execute(target.find, {**parameters, "rows": rows}).scalars())
        if len(keys) == rows:
            return keys, replace(place, after=keys[-1])
        if keys or end.finished:
            return keys, end
        following = connection.execute(target.next_key, {"after": end.after, "until": place.until}).scalar()
    return keys, replace(place, after=place.until if following is None else target.key.before(following))
