"""The audit: who ordered which change when, with which arguments, and what it came to; kept in `worker_audit`."""

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from sqlalchemy import Engine, TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from db.rows import dicts
from tasks.deadline import within

log = structlog.get_logger(__name__)

SECONDS = 5.0
BEGIN = text("INSERT INTO worker_audit (who, what, arguments) VALUES (:who, :what, :arguments)")
END = text("UPDATE worker_audit SET outcome = :outcome WHERE id = :id")
# By the primary key, newest first.
NEWEST = text("""
    SELECT began_at, who, what, arguments, outcome FROM worker_audit
    WHERE what LIKE :what ORDER BY id DESC LIMIT :limit
""")


def begin(engine: Engine, who: str, what: str, arguments: Mapping[str, Any]) -> int | None:
    """Enter an order before it is carried out; return the entry's id. None, with a log line, where that is impossible: what
    an incident calls for does not wait for a database that is away.
    """
    try:
        given = orjson.dumps(arguments, default=str).decode()
    except TypeError:  # an integer over 64 bits, or a byte that is no UTF-8
        given = orjson.dumps({name: ascii(value) for name, value in arguments.items()}).decode()
    return _write(engine, BEGIN, {"who": who[:100], "what": what[:64], "arguments": given})


def end(engine: Engine, entry: int, outcome: str) -> None:
    """Enter what it came to."""
    _write(engine, END, {"id": entry, "outcome": outcome[:255]})


def _write(engine: Engine, statement: TextClause, values: Mapping[str, Any]) -> int | None:
    def write() -> int | str:
        try:
            with engine.begin() as connection:
                return int(connection.execute(statement, values).lastrowid)
        except SQLAlchemyError as error:
            return str(getattr(error, "orig", error))

    found = within(SECONDS, write, f"no answer within {SECONDS:g} s")
    if isinstance(found, str):
        log.warning("not in the audit", **values, reason=found)
    return found if isinstance(found, int) else None


def newest(engine: Engine, what: str, limit: int) -> list[dict[str, Any]]:
    """Return the newest entries of commands that begin with `what`."""
    with engine.connect() as connection:
        return [
            row | {"arguments": orjson.loads(row["arguments"])}
            for row in dicts(connection, NEWEST, what=f"{what}%", limit=limit)
        ]


def who() -> str:
    """Return the operator's login name and host: of who called sudo, which deploy/as passes on, or else of this user."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
