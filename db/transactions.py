"""Run a transaction again after a deadlock, a lock wait or a lost connection."""

import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine, TextClause
from sqlalchemy.exc import DataError, DBAPIError

log = structlog.get_logger(__name__)
T = TypeVar("T")

CONTENTION = {1205: "lock wait timeout", 1213: "deadlock"}
AWAY = {
    1040: "too many connections",
    1053: "server is shutting down",
    1290: "server is read-only",  # as a primary is for a moment that is being demoted
    1836: "server is read-only",
    1927: "connection was killed",
    2003: "cannot connect",
    2006: "server has gone away",
    2013: "lost connection",
}
TRANSIENT = CONTENTION | AWAY
# By SQLSTATE: a value that does not fit, a key, a CHECK, or a trigger's SIGNAL, which may give any error number. By number:
# MySQL's CHECK, and a SIGNAL of a state of its own; and a column's name that means two, which is no row's fault. Only the
# statement is undone.
OF_ROWS, AND_OF_ROWS, NOT_OF_ROWS = {"02", "22", "23", "44", "45"}, {3819, 1644}, 1052

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


def error_code(error: DBAPIError) -> int | None:
    """Return the server's or client's MySQL error number, None where the driver gave none."""
    arguments = getattr(error.orig, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None


def is_of_rows(error: DBAPIError) -> bool:
    """Return whether rows of the statement were refused, by their values or the schema: without them it may be done."""
    state, code = getattr(error.orig, "sqlstate", None) or "", error_code(error)
    return isinstance(error, DataError) or code in AND_OF_ROWS or (state[:2] in OF_ROWS and code != NOT_OF_ROWS)


def transact(engine: Engine, work: Callable[[Connection], T], *, patience: float = 10.0) -> T:
    """Return what `work` returns for a connection inside one transaction, committed.

    Deadlocks, lock waits and a lost server are tried again with jitter until `patience` seconds have passed; then the
    error is raised. A commit whose answer was lost is run again, so `work` must be harmless when it runs twice.
    """
    deadline = time.monotonic() + patience
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            code = error_code(error)
            if code not in TRANSIENT or time.monotonic() + pause > deadline:
                raise
            log.warning("transaction tried again", reason=TRANSIENT[code], code=code)
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def write_rows(connection: Connection, statement: TextClause, ids: Sequence[int], **values: object) -> list[int]:
    """Write the rows `ids` in one statement, or in ever smaller ones where the schema refuses some; return those it took."""
    if not ids:
        return []
    try:
        connection.execute(statement, {"ids": [*ids], **values})
        return [*ids]
    except DBAPIError as error:
        if not is_of_rows(error):
            raise
    half = len(ids) // 2
    parts = (ids[:half], ids[half:]) if half else ()
    return [id_ for part in parts for id_ in write_rows(connection, statement, part, **values)]
