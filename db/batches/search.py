"""The search for the next batch: the keys of matching rows, read without locks."""

from dataclasses import replace

from sqlalchemy import Connection, Engine

from db.batches.place import Place
from db.batches.target import Target, Value


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
