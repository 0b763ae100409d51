"""What a policy would do now: how many rows, how old, how long it would take, by which query plan. Nothing is locked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from db.batches.count import Count, count
from db.batches.target import Target
from db.batches.walk import Place, start
from tasks.retention import ledger, rules
from tasks.retention.policies import Policy

# Until a policy has runs to measure by; about what a small server does.
GUESSED_ROWS_PER_SECOND = 10_000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`why_not` says why no run would start now; `measured` whether `rows_per_second` comes from earlier runs."""

    policy: str
    does: str
    age: str
    cutoff: Any
    count: Count
    rows_per_second: float
    measured: bool
    explain: list[dict[str, Any]]
    why_not: str | None

    @property
    def seconds(self) -> float:
        return self.count.rows / self.rows_per_second


def plan(
    engine: Engine, policy: Policy, *, seconds: float, progress: Callable[[Place, int], None] = lambda _place, _rows: None
) -> Plan:
    """Return the preview of a run; counting takes `seconds` at most. Raise RuleError if the policy's rule is unusable."""
    with engine.connect() as connection:
        now = rules.read(connection, policy)
        cutoff = ledger.cutoff(connection, now.age)
        pace = ledger.pace(connection, policy)
    place = start(engine, policy.target, cutoff)
    with engine.connect() as connection:
        explained = _explain(connection, policy.target, place)
    return Plan(
        policy=policy.name,
        does=policy.does,
        age=now.texts["age"],
        cutoff=cutoff,
        count=count(engine, policy.target, place, policy.age_column, seconds=seconds, progress=progress),
        rows_per_second=pace or GUESSED_ROWS_PER_SECOND,
        measured=pace is not None,
        explain=explained,
        why_not=now.why_not(),
    )


def _explain(connection: Connection, target: Target, place: Place) -> list[dict[str, Any]]:
    """Return the server's plan of the search, of its first window."""
    if place.after is None or place.until is None:
        return []
    end = min(target.key.after(place.after, target.key.window), place.until)
    parameters = {"cutoff": place.cutoff, "after": place.after, "until": end, "rows": 1000}
    rows = connection.execute(target.explain, parameters).mappings()
    return [{name.lower(): row[name] for name in row if name.lower() in {"type", "key", "rows", "extra"}} for row in rows]
