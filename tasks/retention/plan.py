"""Preview a policy: how many rows it would touch now, how old, how long it would take, by which query plan. No locks."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine

from db.batches.count import Count, count
from db.batches.place import Place, start
from db.batches.target import Target
from db.check import foreign_keys
from settings import ConfigurationError
from tasks.retention import files, ledger, rules
from tasks.retention.files import Files
from tasks.retention.policies import Policy

# Until a policy has runs to measure by; about what a small server does.
GUESSED_ROWS_PER_SECOND = 10_000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`why_not` says why no run would start now; `measured` whether `rows_per_second` comes from earlier runs.

    `scan_seconds` is how long the count took, which reads what a run reads; `rows_per_run` and `seconds_per_run` are the limits
    of one run.
    """

    policy: str
    does: str
    age: str
    cutoff: Any
    count: Count
    rows_per_second: float
    measured: bool
    scan_seconds: float
    rows_per_run: int
    seconds_per_run: float
    explain: list[dict[str, Any]]
    foreign_keys: list[str]
    why_not: str | None

    @property
    def seconds(self) -> float:
        """How long it takes to read the whole table and to write the rows."""
        return self.scan_seconds + self.count.rows / self.rows_per_second

    @property
    def runs(self) -> int:
        """How many runs it takes, each within its limits."""
        return max(1, math.ceil(self.count.rows / self.rows_per_run), math.ceil(self.seconds / self.seconds_per_run))


def plan(engine: Engine, policy: Policy, *, seconds: float, progress: Callable[[int], None] = lambda _: None) -> Plan:
    """Return the preview of a run; counting takes `seconds` at most. Raise RuleError if the policy's rule is unusable."""
    with engine.connect() as connection:
        now = rules.read(connection, policy)
        cutoff = ledger.cutoff(connection, now.age)
        pace = ledger.pace(connection, policy)
    began, why, target = time.monotonic(), now.why_not(), policy.target
    explained, keys = list[dict[str, Any]](), list[str]()
    if isinstance(target, Files):
        try:
            counted = files.count(target, cutoff)
        except ConfigurationError as error:
            counted, why = Count(0, None, None, True), str(error)
    else:
        place = start(engine, target, cutoff)
        with engine.connect() as connection:
            explained = _explain(connection, target, place)
            keys = foreign_keys(connection, [target.table]) if policy.archives else []
        counted = count(engine, target, cutoff, policy.age_column, seconds=seconds, progress=progress)
    return Plan(
        policy=policy.name,
        does=policy.does,
        age=now.texts["age"],
        cutoff=cutoff,
        count=counted,
        rows_per_second=pace or GUESSED_ROWS_PER_SECOND,
        measured=pace is not None,
        scan_seconds=time.monotonic() - began,
        rows_per_run=now.rows_per_run,
        seconds_per_run=now.minutes_per_run * 60.0,
        explain=explained,
        foreign_keys=keys,
        why_not=why,
    )


def _explain(connection: Connection, target: Target, place: Place) -> list[dict[str, Any]]:
    """Return the server's plan of the search, of its first window."""
    if place.after is None or place.until is None:
        return []
    end = min(target.key.after(place.after, target.key.window), place.until)
    parameters = {"cutoff": place.cutoff, "after": place.after, "until": end, "rows": 1000}
    rows = connection.execute(target.explain, parameters).mappings()
    return [{name.lower(): row[name] for name in row if name.lower() in {"type", "key", "rows", "extra"}} for row in rows]
