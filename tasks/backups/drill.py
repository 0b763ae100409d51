"""Prove a backup by restoring it: into a scratch schema, compared row for row with what was dumped, and dropped again."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from db.transactions import error_code
from tasks.backups import dump, restore
from tasks.backups.client import DUMPERS, find_client, server_family
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup, Tick
from tasks.backups.scan import DumpScan

# A scratch schema is known by this table; one that has tables and not this is someone's data.
MARK = "worker_drill_scratch"

DENIED = {1044, 1142}
TABLES = text("SELECT table_name FROM information_schema.tables WHERE table_schema = :name")


def drill(engine: Engine, backup: Backup, passphrases: list[bytes], scratch: str, tick: Tick) -> int:
    """Restore a dump into the schema `scratch` and return how many rows came back just as they were.

    The rows are counted by the server, and dumped again: the text of each table's rows must have the digest that it had when
    the backup was made. Raise BackupError where anything differs.
    """
    expected = backup.signed.manifest.tables
    with scratch_schema(engine, scratch) as target:
        restore.restore(target, backup, passphrases, tick, expected, triggers=False)  # which need rights that a drill has not
        counted = restore.count_rows(target, expected)
        for name, table in expected.items():
            if counted[name] != table.rows:
                raise BackupError(
                    f"{backup.name} restored {counted[name]:,} rows of {name} where its manifest says {table.rows:,}"
                )
        client = find_client(DUMPERS[server_family(engine)])
        scan = DumpScan()
        for _ in dump.dump_text(target, client, scan, tick, expected):
            pass
        if differing := [name for name, table in dump.tables_of(scan).items() if table != expected.get(name)]:
            same = client.version == backup.signed.manifest.client
            hint = "" if same else f"; it was made by another client ({backup.signed.manifest.client})"
            raise BackupError(f"{backup.name} restored other values than were dumped in {', '.join(differing)}{hint}")
    return sum(counted.values())


@contextmanager
def scratch_schema(engine: Engine, name: str) -> Iterator[Engine]:
    """Yield an engine for an empty schema that is dropped at the end, also after a drill that was killed.

    Raise BackupError if a schema of that name has tables that no drill made.
    """
    if name == engine.url.database:
        raise BackupError(f"BACKUP_DRILL_DATABASE is {name}, the chat's own database; a drill drops its schema")
    try:
        _drop(engine, name)
        restore.create_schema(engine, name)
    except DBAPIError as error:
        if error_code(error) not in DENIED:
            raise
        raise BackupError(
            f"the account {engine.url.username} may not make the drills' schema; as an administrator run:"
            f" GRANT ALL PRIVILEGES ON `{name.replace('_', chr(92) + '_')}`.* TO {engine.url.username}@…"
        ) from None
    target = restore.schema_engine(engine, name)
    try:
        with target.connect() as connection:
            connection.execute(text(f"CREATE TABLE {MARK} (made_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP PRIMARY KEY)"))
        yield target
    finally:
        target.dispose()
        _drop(engine, name)


def _drop(engine: Engine, name: str) -> None:
    with engine.connect() as connection:
        tables = set(connection.execute(TABLES, {"name": name}).scalars())
        if tables and MARK not in tables:
            raise BackupError(f"the schema {name} has tables that no drill made; set BACKUP_DRILL_DATABASE to another name")
        connection.execute(text(f"DROP DATABASE IF EXISTS {restore.quoted(name)}"))
