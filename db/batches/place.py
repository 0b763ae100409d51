"""The place of a walk: how far it has come through the keys of its table, where it ends, and the search for what is next."""

from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine

from db.batches.target import Target, Value


@dataclass(frozen=True, slots=True)
class Place:
    """All keys up to `after` are done; keys beyond `until` are no part of the walk. `cutoff` is the predicate's."""

    cutoff: object
    after: Value | None
    until: Value | None

    @property
    def finished(self) -> bool:
        return self.after is None or self.until is None or self.after >= self.until  # type: ignore[operator]

    def ahead(self, target: Target, steps: int) -> "Place":
        """Return the place `steps` keys on, or the end. The walk must not be finished."""
        assert self.after is not None  # noqa: S101 - not finished
        assert self.until is not None  # noqa: S101
        return replace(self, after=min(target.key.after(self.after, steps), self.until))


def start(engine: Engine, target: Target, cutoff: object) -> Place:
    """Return the place before the first row. Rows inserted from now on are no part of the walk."""
    with engine.connect() as connection:
        first, last = connection.execute(target.bounds).one()
    return Place(cutoff, None if first is None else target.key.before(first), last)


def find(engine: Engine, target: Target, place: Place, rows: int) -> tuple[list[Value], Place]:
    """Return up to `rows` keys of the next window that has any row, and the place behind the part that was searched."""
    end = place.ahead(target, target.key.window)
    parameters = {"cutoff": place.cutoff, "after": place.after, "until": end.after}
    with engine.connect() as connection:
        keys = list(connection.execute(target.find, {**parameters, "rows": rows}).scalars())
        if len(keys) == rows:
            return keys, replace(place, after=keys[-1])
        return keys, end if keys else skip_gap(connection, target, end)


def skip_gap(connection: Connection, target: Target, place: Place) -> Place:
    """Return the place just before the next row that there is, or the end."""
    if place.finished:
        return place
    following = connection.execute(target.next_key, {"after": place.after, "until": place.until}).scalar()
    return replace(place, after=place.until if following is None else target.key.before(following))
