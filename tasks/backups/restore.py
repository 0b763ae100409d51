"""Restore a dump into a schema, and say what its rows still miss there."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Engine, bindparam, text

from db.engine import create_engine
from db.models import CHAT_TABLES, Base
from tasks.backups.client import SHELL_FLAGS, SHELLS, Client, find_client, running, server_family
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup, Tick, check_bytes
from tasks.backups.scan import only_tables
from tasks.backups.verify import plain

# The first line of newer MariaDB dumps, which no MySQL client can read (CVE-2024-21096); it stays in the artefact.
# https://mariadb.org/mariadb-dump-file-compatibility-change/
SANDBOX = (b"/*!999999\\- enable the sandbox mode */", b"/*M!999999\\- enable the sandbox mode */")

COUNT_SECONDS = 1800.0
"""How long one table may take to be counted or its keys to be compared."""

PRESENT = text("SHOW TABLES")
KEYS = text(
    "SELECT table_name, column_name, referenced_table_name, referenced_column_name FROM information_schema.key_column_usage"
    " WHERE table_schema = DATABASE() AND table_name IN :names AND referenced_table_name IS NOT NULL"
    " ORDER BY table_name, column_name"
).bindparams(bindparam("names", expanding=True))

PARENT_TABLES = sorted(set(Base.metadata.tables) - set(CHAT_TABLES))  # users, shipments, bids
NEEDS = (
    "Stop the API, the workers and beat first: they would work on tables that are being replaced."
    f" The chat's rows refer to {', '.join(PARENT_TABLES)}, which are not in this backup: they must come from a backup of the"
    " same moment. Until then rows that name a missing one can be read, but a write to them fails with error 1452."
)


@dataclass(frozen=True, slots=True)
class Orphans:
    """Rows of a restored table whose parent row is not there; `count` is None where the whole parent table is missing."""

    column: str
    parent: str
    count: int | None


def filled_tables(target: Engine, tables: Collection[str] = CHAT_TABLES) -> list[str]:
    """Return which of these tables exist in the target and have a row."""
    with target.connect() as connection:
        present = set(connection.execute(PRESENT).scalars())
        first = {name: text(f"SELECT 1 FROM `{name}` LIMIT 1") for name in tables if name in present}  # noqa: S608 - our names
        return [name for name, row in first.items() if connection.execute(row).scalar()]


def create_schema(engine: Engine, name: str) -> None:
    """Make the schema `name` on the engine's server unless it is there. The engine's own may be the one that is gone."""
    server = schema_engine(engine, "information_schema")
    with server.connect() as connection:
        if name not in connection.execute(text("SHOW DATABASES")).scalars().all():
            connection.execute(text(f"CREATE DATABASE {quoted(name)} CHARACTER SET utf8mb4"))
    server.dispose()


def schema_engine(engine: Engine, name: str) -> Engine:
    """Return an engine for another schema of the same server and account, patient enough to count big tables."""
    url = engine.url.set(database=name)
    return create_engine(url.render_as_string(hide_password=False), read_seconds=COUNT_SECONDS)


def restore(
    target: Engine, backup: Backup, passphrases: list[bytes], tick: Tick, tables: Collection[str] = CHAT_TABLES
) -> None:
    """Load a dump, or these tables of it, into the target's schema in place of the tables there; verified first.

    Raise BackupError if the dump is not what its manifest says, before anything is touched, or if the server refuses it: then
    the target is half restored and the restore is to be run again.
    """
    if unknown := set(tables) - set(backup.signed.manifest.tables):
        raise BackupError(f"{backup.name} has no table {', '.join(sorted(unknown))}; it has {', '.join(CHAT_TABLES)}")
    check_bytes(backup, passphrases, tick)
    client = find_client(SHELLS[server_family(target)])
    chunks: Iterable[bytes] = plain(backup, tick)
    if set(tables) != set(backup.signed.manifest.tables):
        chunks = only_tables(chunks, tables)
    load_text(target, client, chunks, backup.name)


def load_text(target: Engine, client: Client, chunks: Iterable[bytes], name: str) -> None:
    """Pipe SQL into the target's schema. Raise BackupError with the client's own words if it does not take all of it."""
    arguments = (*SHELL_FLAGS, target.url.database or "")
    with running(client, arguments, target.url, writes=False) as child:
        assert child.process.stdin is not None  # noqa: S101 - it was started with a pipe
        first = True
        try:
            for chunk in chunks:
                data = _readable(chunk, client) if first and chunk else chunk
                first = first and not chunk
                view = memoryview(data)
                while view:
                    view = view[child.process.stdin.write(view) :]
            child.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended early; its status and words say why
        child.finish(f"restoring {name} into {target.url.database}", {})


def _readable(start: bytes, client: Client) -> bytes:
    line, end, rest = start.partition(b"\n")
    return rest if client.family == "MySQL" and end and line.strip() in SANDBOX else start


def count_rows(target: Engine, tables: Collection[str]) -> dict[str, int]:
    """Return the exact number of rows of each table."""
    with target.connect() as connection:
        counts = {name: text(f"SELECT COUNT(*) FROM `{name}`") for name in tables}  # noqa: S608 - as in a verified manifest
        return {name: connection.execute(count).scalar_one() for name, count in counts.items()}


def orphans(target: Engine, tables: Collection[str] = CHAT_TABLES) -> list[Orphans]:
    """Return the keys from restored tables to others that do not hold now, each after one pass over the key's index."""
    with target.connect() as connection:
        # By position: MySQL 8 calls these columns by capital letters.
        keys = [tuple(row) for row in connection.execute(KEYS, {"names": list(tables)}) if row[2] not in tables]
        present = set(connection.execute(PRESENT).scalars())
        found = []
        for table, column, parent, parent_column in keys:
            if parent not in present:
                found.append(Orphans(f"{table}.{column}", parent, None))
                continue
            missing = connection.execute(
                text(
                    f"SELECT COUNT(*) FROM `{table}` c"  # noqa: S608 - names of the schema
                    f" LEFT JOIN `{parent}` p ON p.`{parent_column}` = c.`{column}`"
                    f" WHERE c.`{column}` IS NOT NULL AND p.`{parent_column}` IS NULL"
                )
            ).scalar_one()
            if missing:
                found.append(Orphans(f"{table}.{column}", parent, missing))
        return found


def quoted(name: str) -> str:
    """Return an identifier in backticks."""
    return "`" + name.replace("`", "``") + "`"
