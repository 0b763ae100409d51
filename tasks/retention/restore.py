"""Restore archived rows as they were: leave rows alone that exist already, and name those that the database refuses."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.exc import DataError, IntegrityError

from db.transactions import error_code, transact
from tasks.retention.archive import COLUMNS, ArchiveError, encode, files_of, read_file
from tasks.retention.policies import POLICIES, Policy

CHUNK_ROWS = 500

PRIMARY_KEY = text("""
    SELECT column_name FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = :table AND index_name = 'PRIMARY' ORDER BY seq_in_index
""")


@dataclass(slots=True)
class Restored:
    """The result of a restore, in rows; `refused` counts by the server's reason."""

    files: int = 0
    restored: int = 0
    already_there: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def policies_of(paths: Sequence[Path]) -> set[str]:
    """Return the names of the policies that would delete the rows of these archives again. Raise ArchiveError."""
    tables = {read_file(file)[0] for file in files_of(*paths)}
    return {policy.name for policy in POLICIES.values() if policy.deletes and policy.target.table in tables}


def restore(engine: Engine, *paths: Path) -> Restored:
    """Insert the rows of archive files, and of all in folders. May be run again. Raise ArchiveError before a file's first row
    if that file is not whole, or does not fit the table.
    """
    done = Restored()
    for file in files_of(*paths):
        table, columns, rows = read_file(file)
        policy = _policy(file, table)
        with engine.connect() as connection:
            live = set(connection.execute(COLUMNS, {"table": table}).scalars())
            primary = list(connection.execute(PRIMARY_KEY, {"table": table}).scalars())
        if missing := [column for column in columns if column not in live]:
            raise ArchiveError(f"{file} has columns that {table} lacks today: {', '.join(missing)}")
        for first in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[first : first + CHUNK_ROWS]
            part = transact(engine, partial(_insert, policy=policy, columns=columns, primary=primary, rows=chunk))
            done.restored += part.restored
            done.already_there += part.already_there
            done.refused.update(part.refused)
        done.files += 1
    return done


def _policy(file: Path, table: str) -> Policy:
    for policy in POLICIES.values():
        if policy.deletes and policy.target.table == table:
            return policy
    raise ArchiveError(f"{file} holds rows of {table}, which no retention policy deletes from")


def _insert(connection: Connection, policy: Policy, columns: list[str], primary: list[str], rows: list[list[Any]]) -> Restored:
    table, key = policy.target.table, policy.target.key.column
    find = text(
        f"SELECT {', '.join(primary)} FROM {table} WHERE {key} IN :keys"  # noqa: S608 - names of the schema
    ).bindparams(bindparam("keys", expanding=True))
    there = {encode(row) for row in connection.execute(find, {"keys": [row[columns.index(key)] for row in rows]})}
    wanted = [row for row in rows if encode(row[columns.index(name)] for name in primary) not in there]
    names = ", ".join(f"`{name}`" for name in columns)
    marks = ", ".join(["%s"] * len(columns))
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - `restore` has found them in the schema
    part = Restored(already_there=len(rows) - len(wanted))
    if wanted:
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(statement, [tuple(row) for row in wanted])
            part.restored = len(wanted)
        except (IntegrityError, DataError):
            for row in wanted:
                _insert_alone(connection, statement, row, part)
    return part


def _insert_alone(connection: Connection, statement: str, row: list[Any], part: Restored) -> None:
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(statement, tuple(row))
        part.restored += 1
    except (IntegrityError, DataError) as error:
        reason = {1452: "what it refers to is gone"}.get(error_code(error) or 0, str(error.orig))
        part.refused[reason] += 1
