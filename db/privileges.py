"""The least rights of each database account, with the job that needs them: as data and as probes."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db.engine import create_engine
from db.models import DUMPED_TABLES
from db.needs import COLUMNS, VERSION_TABLE
from db.transactions import error_code
from settings import ConfigurationError

Account = Literal["workers", "backup"]
Right = Literal["SELECT", "INSERT", "UPDATE", "DELETE", "TRIGGER"]

# Refused for want of a right: on the database, the table, the column, or at large.
DENIED = {1044, 1142, 1143, 1227}


@dataclass(frozen=True, slots=True)
class Need:
    """A right on a table, or on some of its columns, and what fails without it: "" for the job that owns the table."""

    right: Right
    table: str
    job: str = ""
    columns: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The right as GRANT has it, as in UPDATE (is_safe)."""
        return f"{self.right} ({', '.join(self.columns)})" if self.columns else self.right


WRITES = (
    Need("UPDATE", "chat_notifications", "notifications", ("delivery_status", "is_sent", "sent_at", "error_message")),
    Need("DELETE", "chat_notifications", "retention"),
    Need("UPDATE", "message_attachments", "attachments", ("scanned_for_virus", "is_safe")),
    Need("UPDATE", "conversations", "retention", ("is_active", "is_closed", "closed_at", "closed_reason")),
    Need("DELETE", "typing_indicators", "typing indicators"),
)
# Of the other tables that are read, pushes are the readers.
READERS = {
    "message_attachments": "attachments",
    "typing_indicators": "typing indicators",
    "conversations": "retention and notifications",
}
ON_OWN: tuple[Right, ...] = ("SELECT", "INSERT", "UPDATE", "DELETE")
TO_DUMP: tuple[Right, ...] = ("SELECT", "TRIGGER")
TO_RECORD: tuple[Right, ...] = ("SELECT", "INSERT", "DELETE")
TO_AUDIT: tuple[Right, ...] = ("SELECT", "INSERT", "UPDATE")


def worker_tables() -> list[str]:
    """Return the worker-owned tables as the migrations make them, the table of the revision left out."""
    migrations = (Path(__file__).parent / "migrations" / "versions").glob("*.py")
    return sorted(
        {name for path in migrations for name in re.findall(r"CREATE TABLE IF NOT EXISTS (worker_\w+)", path.read_text())}
    )


def needs(account: Account) -> list[Need]:
    """Return all that an account needs on tables of the chat's schema."""
    own = worker_tables()
    if account == "backup":
        chat = [Need(right, table, "backups") for table in DUMPED_TABLES for right in TO_DUMP]
        audit = [Need(right, "worker_audit", "backups") for right in TO_AUDIT]
        event = Need("INSERT", "worker_events", "backups")
        return [*chat, *(Need(right, "worker_backup_runs", "backups") for right in TO_RECORD), *audit, event]
    # Archives hold whole rows of chat_notifications. What people wrote to each other the workers have no need to read.
    reads = [
        Need("SELECT", table, READERS.get(table, "notifications"), () if table == "chat_notifications" else tuple(columns))
        for table, columns in COLUMNS.items()
    ]
    written = [Need(right, table) for table in own for right in ON_OWN]
    return [*reads, *WRITES, *written, Need("SELECT", VERSION_TABLE, "db check")]


def require(url: str) -> None:
    """Raise ConfigurationError where the workers' account lacks what pushes read or write. A database that is away passes."""
    engine, lacking = create_engine(url), list[str]()
    with suppress(DBAPIError), engine.connect() as connection:
        needed = [need for need in missing(connection, "workers") if not need.job or "notifications" in need.job]
        lacking = [f"{need.words} on {need.table}" for need in needed]
    engine.dispose()
    if lacking:
        raise ConfigurationError(
            f"the account of DATABASE_URL lacks {', '.join(lacking[:5])}: as an administrator run deploy/mysql/grants.sql"
        )


def missing(connection: Connection, account: Account) -> Iterator[Need]:
    """Yield what this connection's account lacks of another's needs, found by trying: EXPLAIN needs the right and does nothing.

    Tables and columns that are not there are left out, for the schema's own check names them; TRIGGER cannot be tried
    without using it and UPDATE not without a column, and both are left out too.
    """
    for need in needs(account):
        if need.right not in PROBES or (need.right == "UPDATE" and not need.columns):
            continue
        same = ", ".join(f"{column} = {column}" for column in need.columns)
        try:
            connection.exec_driver_sql(
                PROBES[need.right].format(table=need.table, same=same, read=", ".join(need.columns) or "*")
            )
        except DBAPIError as error:
            if error_code(error) in DENIED:
                yield need
            elif error_code(error) not in NOT_THERE:
                raise


# No such column, no such table.
NOT_THERE = {1054, 1146}
PROBES: dict[Right, str] = {
    "SELECT": "EXPLAIN SELECT {read} FROM `{table}` WHERE FALSE",
    "INSERT": "EXPLAIN INSERT INTO `{table}` () VALUES ()",
    "UPDATE": "EXPLAIN UPDATE `{table}` SET {same} WHERE FALSE",
    "DELETE": "EXPLAIN DELETE FROM `{table}` WHERE FALSE",
}
