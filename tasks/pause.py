"""The pauses by operators of pushes, scans, retention's policies and beat's entries, in MySQL: obeyed within a second."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from db.locks import is_held
from tasks.facts import Column, Fact, Table
from tasks.words import moment, printable

LOOK_SECONDS = 0.5
"""How often a worker looks for pauses: what it has claimed may take it several seconds."""
ALL, RESTORE, SCANS, ENTRY, POLICY = "", "*", "attachments", "beat:", "retention:"
# '' pauses all pushes, '*' these, the scans and retention while a restore lasts, whatever operators do meanwhile. One that
# is past its end pauses nobody, and stays until it is resumed or made anew.
IN_FORCE = "paused_until IS NULL OR paused_until > NOW(3)"
PAUSE = text("""
    INSERT INTO worker_pauses (what, paused_by, why, paused_until)
    VALUES (:what, :by, :why, NOW(3) + INTERVAL :seconds SECOND)
    ON DUPLICATE KEY UPDATE paused_at = NOW(3), paused_by = VALUES(paused_by), why = VALUES(why),
                            paused_until = VALUES(paused_until)
""")
RESUME = text("DELETE FROM worker_pauses WHERE what = :what")
# Of the schedule, by what is behind ENTRY; a range of the primary key.
ENTRIES = text(f"""
    SELECT SUBSTR(what, {len(ENTRY) + 1}) AS name, paused_by AS `by`, why, paused_until AS until FROM worker_pauses
    WHERE what LIKE '{ENTRY}%' AND ({IN_FORCE})
""")  # noqa: S608 - constants of this module
PAUSED = text(f"SELECT what FROM worker_pauses WHERE {IN_FORCE}")  # noqa: S608 - a constant of this module


def of_pushes(provider: str, app: str) -> frozenset[str]:
    """Return each pause that holds a provider's app: of all, of the provider, of the app, of both."""
    return frozenset({ALL, RESTORE, provider, f".{app}", f"{provider}.{app}"})


def pause(connection: Connection, what: Collection[str], by: str, why: str, lasting: timedelta | None = None) -> None:
    """Pause these (as in `of_pushes`, SCANS, ENTRY or POLICY and a name), or all pushes, until resumed or `lasting` is over."""
    for each in what or (ALL,):
        seconds = lasting and lasting.total_seconds()
        connection.execute(PAUSE, {"what": each, "by": by[:100], "why": printable(why)[:255], "seconds": seconds})


def resume(connection: Connection, what: Collection[str]) -> list[str]:
    """Take pauses back, these or every one of pushes; return which there were."""
    there = connection.execute(text("SELECT what FROM worker_pauses")).scalars().all()
    ended = [each for each in there if (each in what if what else not each.startswith((SCANS, ENTRY, POLICY)))]
    for each in ended:
        connection.execute(RESUME, {"what": each})
    return ended


def paused(engine: Engine) -> frozenset[str]:
    """Return what is paused now; ALL and RESTORE stand for all pushes, RESTORE for the scans and retention besides."""
    with engine.connect() as connection:
        return frozenset(connection.execute(PAUSED).scalars())


def table(name: str, title: str, fact: Fact, *, scans: bool) -> Table:
    """Return the table of the pauses in force, of pushes by what people call them or of scans; `fact` is for how long."""
    of_these = f"what IN ('{SCANS}', '{RESTORE}')" if scans else f"what NOT REGEXP '^({SCANS}$|{ENTRY}|{POLICY})'"
    read = text(f"""
        SELECT CASE WHEN what = '' THEN 'all' WHEN what = '*' THEN 'all, for a restore'
                    WHEN what LIKE '.%' THEN CONCAT('app ', SUBSTR(what, 2)) ELSE what END AS provider,
               paused_by, why, paused_until, TIMESTAMPDIFF(SECOND, paused_at, NOW(3)) AS {fact.name}
        FROM worker_pauses WHERE ({IN_FORCE}) AND {of_these} ORDER BY what LIMIT 20
    """)  # noqa: S608 - constants of this project
    until = Column("until", lambda row: moment(row["paused_until"]) if row["paused_until"] else "it is resumed")
    by, why = Column("by", lambda row: row["paused_by"]), Column("why", lambda row: row["why"] or "-")
    return Table(name, title, () if scans else ("provider",), read, (fact, until, by, why))


# A lease ends by itself, also one of a worker that died.
UNDER_WAY = text("SELECT COUNT(*) FROM worker_deliveries WHERE lease IS NOT NULL AND due_at > NOW(3)")
RUNS = text("SELECT policy FROM worker_retention_runs WHERE ended_at IS NULL")  # of a killed one the lock is free


@contextmanager
def held(engine: Engine, by: str, what: str) -> Iterator[None]:
    """Send, scan and purge nothing while the block lasts: pause all, wait for the pushes and policies' runs that are under way,
    and resume if it went well.

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
            runs = connection.execute(RUNS).scalars().all()
            under_way = connection.execute(UNDER_WAY).scalar_one() or any(is_held(engine, POLICY + each) for each in runs)
    yield
    with engine.begin() as connection:
        connection.execute(RESUME, {"what": RESTORE})
