"""The pauses of operators, by provider or of all, held in MySQL: every drain obeys within a second, and no attempt is burnt."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

LOOK_SECONDS = 0.5
"""How often a drain looks for pauses: what it has claimed may take it several seconds to send."""
HELD_FOR = "held for"
# The row '' pauses all. One that is past its end pauses nobody, and stays until it is resumed or made anew.
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
    for provider in providers or ("",):
        seconds = lasting and lasting.total_seconds()
        connection.execute(PAUSE, {"provider": provider, "by": by[:100], "why": why[:255], "seconds": seconds})


def resume(connection: Connection, providers: Collection[str]) -> list[str]:
    """Take pauses back, of these providers or every one; return which there were, '' for the one of all."""
    there = connection.execute(text("SELECT provider FROM worker_delivery_pauses")).scalars().all()
    ended = [provider for provider in there if not providers or provider in providers]
    for provider in ended:
        connection.execute(RESUME, {"provider": provider})
    return ended


def paused(engine: Engine) -> frozenset[str]:
    """Return the providers that are paused now; '' stands for all."""
    with engine.connect() as connection:
        return frozenset(connection.execute(PAUSED).scalars())


# Another's pause of all; one of an earlier holder that failed is taken over.
OTHERS = text(f"""
    SELECT COUNT(*) FROM worker_delivery_pauses WHERE provider = '' AND why NOT LIKE '{HELD_FOR}%' AND ({IN_FORCE})
""")  # noqa: S608 - constants of this module
RELEASE = text(f"DELETE FROM worker_delivery_pauses WHERE provider = '' AND why LIKE '{HELD_FOR}%'")  # noqa: S608 - as above
# A lease ends by itself, also one of a worker that died.
UNDER_WAY = text("SELECT COUNT(*) FROM worker_deliveries WHERE lease IS NOT NULL AND due_at > NOW(3)")


@contextmanager
def held(engine: Engine, by: str, what: str) -> Iterator[None]:
    """Send nothing while the block lasts: pause all, wait until nothing is under way, and resume if the block went well.

    An operator's own pause stays as it is. A database without our tables has nobody who sends.
    """
    try:
        with engine.begin() as connection:
            if ours := not connection.execute(OTHERS).scalar():
                pause(connection, (), by, f"{HELD_FOR} {what}")
    except ProgrammingError:
        yield
        return
    under_way = 1
    while under_way:
        time.sleep(LOOK_SECONDS)  # also the first time: a drain that has not looked yet may still take rows
        with engine.connect() as connection:
            under_way = connection.execute(UNDER_WAY).scalar_one()
    yield
    if ours:
        with engine.begin() as connection:
            connection.execute(RELEASE)
