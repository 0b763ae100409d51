"""Prove a backup by restoring it: into a scratch schema, compared row for row with what was dumped, and dropped again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError

from db.rows import quoted
from db.transactions import error_code
from tasks.backups import dump, restore, verify
from tasks.backups.client import schema_engine
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup, Tick

# A scratch schema is known by this table; one that has tables and not this is someone's data.
MARK = "worker_drill_scratch"

DENIED = {1044, 1142}
TABLES = text("SELECT table_name FROM information_schema.tables WHERE table_schema = :name")
# By the primary keys, whose order is that of time but for seconds.
NEWEST_ROW = text("""
    SELECT MAX(created_at) FROM (
      (SELECT created_at FROM messages WHERE created_at IS NOT NULL ORDER BY id DESC LIMIT 1) UNION ALL
      (SELECT created_at FROM chat_notifications WHERE created_at IS NOT NULL ORDER BY id DESC LIMIT 1)) AS newest
""")


def drill(scratch: URL, backup: Backup, passphrases: list[bytes], tick: Tick) -> tuple[float, datetime | None]:
    """Restore a dump into the schema `scratch` and compare.

    The rows are dumped again: the text of each table's must have the digest that it has in the backup. Raise
    BackupError where anything differs. Return when, by time.monotonic(), the rows were there, and when the newest was made.
    """
    tables = backup.signed.manifest.tables
    with scratch_schema(scratch) as target:
        # Triggers need rights that a drill has not.
        restore.check(target, backup, passphrases, tick, tables, triggers=False)
        restore.load(target, backup, tick, tables, triggers=False)
        loaded = time.monotonic()
        expected = verify.contents(backup, tick, digests=True)
        found, client = dump.tables_in(target, tick, expected)
        for name, table in expected.items():
            if found[name].rows != table.rows:
                raise BackupError(f"{backup.name} restored {found[name].rows:,} rows of {name}, of {table.rows:,} in it")
        if differing := [name for name, table in expected.items() if not found[name].equals(table)]:
            made_by = backup.signed.manifest.client
            hint = "" if client == made_by else f"; it was made by another client ({made_by})"
            raise BackupError(f"{backup.name} restored other values than were dumped in {', '.join(differing)}{hint}")
        with target.connect() as connection:
            return loaded, connection.execute(NEWEST_ROW).scalar()


@contextmanager
def scratch_schema(scratch: URL) -> Iterator[Engine]:
    """Yield an engine for an empty schema that is dropped at the end, also after a drill that was killed.

    Raise BackupError if a schema of that name has tables that no drill made.
    """
    name = str(scratch.database)
    with schema_engine(scratch, "information_schema") as server:
        try:
            _drop(server, name)
            restore.create_schema(scratch, name)
        except DBAPIError as error:
            if error_code(error) not in DENIED:
                raise BackupError(f"the drills' server {scratch.host} failed: {error.orig}") from None
            raise BackupError(
                f"the account {scratch.username} may not make the drills' schema; as an administrator run:"
                f" GRANT ALL PRIVILEGES ON `{name.replace('_', chr(92) + '_')}`.* TO {scratch.username}@…"
            ) from None
        try:
            with schema_engine(scratch, name) as target:
                with target.connect() as connection:
                    connection.execute(
                        text(f"CREATE TABLE {MARK} (made_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP PRIMARY KEY)")
                    )
                yield target
        finally:
            _drop(server, name)


def _drop(server: Engine, name: str) -> None:
    with server.connect() as connection:
        tables = set(connection.execute(TABLES, {"name": name}).scalars())
        if tables and MARK not in tables:
            raise BackupError(
                f"the schema {name} has tables that no drill made; set BACKUP_DRILL_DATABASE, or BACKUP_DRILL_URL, to another"
            )
        connection.execute(text(f"DROP DATABASE IF EXISTS {quoted(name)}"))
