"""The pauses of operators, by provider or of all, held in MySQL: every drain obeys within a second, and no attempt is burnt."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

LOOK_SECONDS = 0.5
"""How often a drain looks for pauses: what it has claimed may take it several seconds to send."""
ALL, RESTORE = "", "*"
# The row '' pauses all, '*' for as long as a restore takes, whatever operators do meanwhile. One that is past its end pauses
# nobody, and stays until it is resumed or made anew.
IN_FORCE = "paused_until IS NULL OR paused_until > NOW(3)"
PAUSE = text("""
    INSERT INTO worker_delivery_pauses (provider, paused_by, why, paused_until)
    VALUES (:provider, :by, :why, NOW(3) + INTERVAL :seconds SECOND)
    ON DUPLICATE KEY UPDATE paused_at = NOW(3), paused_by = VALUES(paused_by), why = VALUES(why),
                            paused_until = VALUES(paused_until)
""")
RESUME = text("DELETE FROM worker_delivery_pauses WHERE provider = :provider")
PAUSED = text(f"SELECT provider FROM worker_delivery_pauses WHERE {IN_FORCE}")  # noqa: S608 - a constant of this module


def pause(connection: Connection, providers: Collection[str], by: str, why: str, lasting: timedelta | None = None) -> None:
    """Pause these providers, or all if none is named, until they are resumed or `lasting` is over."""
    for provider in providers or (ALL,):
        seconds = lasting and lasting.total_seconds()
        connection.execute(PAUSE, {"provider": provider, "by": by[:100], "why": why[:255], "seconds": seconds})


def resume(connection: Connection, providers: Collection[str]) -> list[str]:
    """Take pauses back, of these providers or every one; return which there were."""
    there = connection.execute(text("SELECT provider FROM worker_delivery_pauses")).scalars().all()
    ended = [provider for provider in there if not providers or provider in providers]
    for provider in ended:
        connection.execute(RESUME, {"provider": provider})
    return ended


def paused(engine: Engine) -> frozenset[str]:
    """Return the providers that are paused now; ALL and RESTORE stand for all."""
    with engine.connect() as connection:
        return frozenset(connection.execute(PAUSED).scalars())


# A lease ends by itself, also one of a worker that died.
UNDER_WAY = text("SELECT COUNT(*) FROM worker_deliveries WHERE lease IS NOT NULL AND due_at > NOW(3)")


@contextmanager
def held(engine: Engine, by: str, what: str) -> Iterator[None]:
    """Send nothing while the block lasts: pause all, wait until nothing is under way, and resume if the block went well.

    Operators' own pauses stay as they are. A database without our tables has nobody who sends.
    """
    try:
        with engine.begin() as connection:
            pause(connection, (RESTORE,), by, what)
    except ProgrammingError:
        yield
        return
    under_way = 1
    while under_way:
        time.sleep(LOOK_SECONDS)  # also the first time: a drain that has not looked yet may still take rows
        with engine.connect() as connection:
            under_way = connection.execute(UNDER_WAY).scalar_one()
    yield
    with engine.begin() as connection:
        connection.execute(RESUME, {"provider": RESTORE})
