"""The place of a walk: how far it has come through the keys of its table, and where it ends."""

from dataclasses import dataclass, replace

from sqlalchemy import Engine

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
