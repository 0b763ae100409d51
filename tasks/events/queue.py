"""Number, read and settle events: every statement on `worker_events` but the one that writes them, with its index.

An id is given before its transaction commits, so that a reader who goes on behind the greatest that he saw would miss one that
came later with a smaller id. Numbers are given afterwards, by one at a time, and never come back: they begin with the time.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Engine, text

from db.locks import LockedError, hold
from db.rows import dicts
from db.transactions import transact

LOCK = "events:number"
MOST_NUMBERED = 5000
# After a failed try, doubled each time.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 600.0
LONGEST_REASON = 255

# Microseconds; below what a number of JavaScript holds until the year 2255.
LAST = text("SELECT GREATEST(COALESCE(MAX(number), 0), FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000000)) FROM worker_events")
# By idx_number, where those without a number come first, in the order of their ids.
# Read apart from the write, whose own reading would wait for events that are not committed. One that someone holds comes later.
UNNUMBERED = text("""
    SELECT id FROM worker_events FORCE INDEX (idx_number) WHERE number IS NULL ORDER BY id LIMIT :rows FOR UPDATE SKIP LOCKED
""")
NUMBER = text("""
    UPDATE JSON_TABLE(:ids, '$[*]' COLUMNS (nth FOR ORDINALITY, id BIGINT PATH '$')) AS new
    STRAIGHT_JOIN worker_events e FORCE INDEX (PRIMARY) ON e.id = new.id SET e.number = :last + new.nth
""")
COLUMNS = "SELECT id, number, type, data, happened_at, attempts FROM worker_events"
AFTER = text(f"{COLUMNS} FORCE INDEX (idx_number) WHERE number > :after ORDER BY number LIMIT :rows")
# Of `rarer` types are all but the one of which a single message may bring a thousand: a look that reads past those of that one.
# Not what could not be settled now, and would be told again and again.
DUE = text(f"""
    {COLUMNS} FORCE INDEX (idx_due) WHERE due_at <= NOW(3) AND number IS NOT NULL
      AND (due_at = happened_at OR NOT :untried) AND (type <> 'device.dead' OR NOT :rarer)
    ORDER BY due_at LIMIT :rows FOR UPDATE SKIP LOCKED
""")
SETTLE = text("""
    UPDATE worker_events SET due_at = NOW(3) + INTERVAL :wait SECOND, attempts = attempts + 1, reason = :reason WHERE id = :id
""")


@dataclass(frozen=True, slots=True)
class Event:
    """A row that has its number."""

    id: int
    number: int
    type: str
    data: str
    happened_at: datetime
    attempts: int

    def told(self) -> dict[str, Any]:
        """Return what others are told, in the form of https://www.standardwebhooks.com."""
        at = f"{self.happened_at.isoformat(timespec='milliseconds')}Z"
        return {"type": self.type, "timestamp": at, "number": self.number, "data": orjson.loads(self.data)}


class Refusal(NamedTuple):
    """Why an event was not taken, and for how many seconds the receiver asked to be left alone."""

    why: str
    wait: float = 0.0


def number(engine: Engine) -> int:
    """Give numbers to committed events that have none; return to how many. None get any while someone else is at it."""

    def write(connection: Connection) -> int:
        ids = connection.execute(UNNUMBERED, {"rows": MOST_NUMBERED}).scalars().all()
        if ids:
            last = connection.execute(LAST).scalar_one()
            connection.execute(NUMBER, {"ids": orjson.dumps(ids).decode(), "last": last})
        return len(ids)

    try:
        with hold(engine, LOCK):
            return transact(engine, write)
    except LockedError:
        return 0


def after(engine: Engine, number: int, rows: int) -> list[Event]:
    """Return the first events behind this number."""
    with engine.connect() as connection:
        return [Event(**row) for row in dicts(connection, AFTER, after=number, rows=rows)]


def due(engine: Engine, rows: int, *, untried: bool = False, rarer: bool = False) -> list[Event]:
    """Return events that are due, the longest first: those that were never tried, if `untried`, and of `rarer` types."""
    with engine.connect() as connection:
        return [Event(**row) for row in dicts(connection, DUE, rows=rows, untried=untried, rarer=rarer)]


def settle(engine: Engine, tried: Sequence[tuple[Event, Refusal | None]]) -> None:
    """Write how tries ended: each event with why it was not taken, None where it was."""
    rows = [
        {"id": event.id, "wait": refusal and _wait(event, refusal), "reason": refusal.why[:LONGEST_REASON] if refusal else ""}
        for event, refusal in tried
    ]
    transact(engine, lambda connection: connection.execute(SETTLE, rows))


def _wait(event: Event, refusal: Refusal) -> float:
    step = min(FIRST_WAIT_SECONDS * 2.0 ** min(event.attempts, 10), LONGEST_WAIT_SECONDS) * random.uniform(0.8, 1.2)
    return max(step, refusal.wait * random.uniform(1.0, 1.2))
