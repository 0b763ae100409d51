"""Restore a dump into a schema, and say what its rows still miss there."""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from db.models import CHAT_TABLES
from db.rows import quoted
from tasks.backups import dump
from tasks.backups.client import SHELL_FLAGS, SHELLS, Client, find_client, running, schema_engine, server_family
from tasks.backups.errors import BackupError, StoppedError
from tasks.backups.folder import Backup, Tick, check_bytes
from tasks.backups.scan import DELIMITER, FOOTER, SECTION, only_tables
from tasks.backups.verify import contents, plain

# The first line of newer MariaDB dumps, which no MySQL client can read (CVE-2024-21096); it stays in the artefact.
# https://mariadb.org/mariadb-dump-file-compatibility-change/
SANDBOX = (b"/*!999999\\- enable the sandbox mode */", b"/*M!999999\\- enable the sandbox mode */")

PRESENT = text("SHOW TABLES")
KEYS = text(
    "SELECT table_name, column_name, referenced_table_name, referenced_column_name FROM information_schema.key_column_usage"
    " WHERE table_schema = DATABASE() AND (table_name IN :names OR referenced_table_name IN :names)"
    " AND referenced_table_name IS NOT NULL"
    " ORDER BY table_name, column_name"
)

# A table of ours, on which is tried what the dump does with its own.
PROBE = "worker_restore_probe"
TRIED = (
    f"CREATE TABLE {PROBE} (id INT NOT NULL PRIMARY KEY)",
    f"LOCK TABLES {PROBE} WRITE",
    f"ALTER TABLE {PROBE} DISABLE KEYS",
    f"INSERT INTO {PROBE} VALUES (1)",  # noqa: S608 - a constant
    "UNLOCK TABLES",
)
TRIGGER = f"CREATE DEFINER={{}} TRIGGER {PROBE} BEFORE INSERT ON {PROBE} FOR EACH ROW SET @probe = 1"
DEFINER = re.compile(rb"DEFINER=(`(?:[^`]|``)*`@`(?:[^`]|``)*`)")

# The tables that a restore which stopped has behind it, noted by the session that made them; it goes with the restore.
PROGRESS = "worker_restore_progress"
MAKE_PROGRESS = text(
    f"CREATE TABLE IF NOT EXISTS {PROGRESS} (sha256 CHAR(64) NOT NULL, name VARCHAR(64) NOT NULL PRIMARY KEY,"
    " at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
)
NOTE = f"\nREPLACE INTO {PROGRESS} (sha256, name) VALUES ('{{}}', '{{}}');\nCOMMIT;"
FORGET = f"\nDELETE FROM {PROGRESS} WHERE name = '{{}}';"
RESTORED = text(f"SELECT name FROM {PROGRESS} WHERE sha256 = :sha256 ORDER BY at")  # noqa: S608 - ours


@dataclass(frozen=True, slots=True)
class Orphans:
    """Rows whose parent is not there, of which one was restored; `count` is None where the whole parent table is missing."""

    column: str
    parent: str
    count: int | None


def filled_tables(target: Engine, tables: Collection[str] = CHAT_TABLES) -> list[str]:
    """Return which of these tables exist in the target and have a row."""
    with target.connect() as connection:
        present = set(connection.execute(PRESENT).scalars())
        first = {name: text(f"SELECT 1 FROM `{name}` LIMIT 1") for name in tables if name in present}  # noqa: S608 - our names
        return [name for name, row in first.items() if connection.execute(row).scalar()]


def create_schema(url: URL, name: str) -> None:
    """Make the schema `name` on the URL's server unless it is there. The URL's own may be the one that is gone."""
    with schema_engine(url, "information_schema") as server, server.connect() as connection:
        if name not in connection.execute(text("SHOW DATABASES")).scalars().all():
            connection.execute(text(f"CREATE DATABASE {quoted(name)} CHARACTER SET utf8mb4"))


def check(
    target: Engine, backup: Backup, passphrases: list[bytes], tick: Tick, tables: Collection[str], *, triggers: bool
) -> None:
    """Raise BackupError if the dump is not what its manifest says, or the target's account or server cannot load it."""
    if unknown := set(tables) - set(backup.signed.manifest.tables):
        raise BackupError(
            f"{backup.name} has no table {', '.join(sorted(unknown))}; it has {', '.join(backup.signed.manifest.tables)}"
        )
    check_bytes(backup, passphrases, tick)
    _check_loadable(target, only_tables(plain(backup, tick), tables, triggers=triggers), backup.name)


def load(target: Engine, backup: Backup, tick: Tick, tables: Collection[str], *, triggers: bool) -> list[str]:
    """Load these tables of a checked dump in place of the target's; `finish` is to follow.

    Go on where a load of the same dump stopped, and return the tables that it had restored, which are left alone
    if they still hold what the dump does. Raise BackupError, with how to go on, if the server does not take all of it.
    """
    client, sha256 = find_client(SHELLS[server_family(target)]), backup.signed.manifest.sha256
    with target.begin() as connection:
        connection.execute(MAKE_PROGRESS)
        present = connection.execute(PRESENT).scalars().all()
    done = [name for name in _restored(target, sha256) if name in present]
    if done:  # and perhaps written to since
        found, _ = dump.tables_in(target, lambda _: tick(0), done)
        held = contents(backup, lambda _: tick(0), digests=True)
        done = [name for name in done if found[name].equals(held[name], triggers=triggers)]
    text = only_tables(plain(backup, tick), {*tables} - {*done}, triggers=triggers)
    try:
        load_text(target, client, _noting(text, sha256), backup.name)
    except (BackupError, KeyboardInterrupt) as error:
        with suppress(DBAPIError):
            done = _restored(target, sha256)
        kind, why = (type(error), error) if isinstance(error, BackupError) else (StoppedError, "stopped")
        raise kind(f"{why}; restored: {', '.join(done) or 'no table'}; run it again, and it goes on from there") from None
    return done


def check_finished(target: Engine) -> None:
    """Raise BackupError if a restore into the target has begun and is not done: what it holds is no backup."""
    with target.connect() as connection:
        if PROGRESS in connection.execute(PRESENT).scalars().all():
            raise BackupError(
                f"{target.url.database} is in the middle of an unfinished restore: run that again, and then this. Or if it is"
                f" given up and the tables are whole: DROP TABLE {PROGRESS}"
            )


def finish(target: Engine) -> None:
    """Forget how far a restore has come, for it is done."""
    with target.begin() as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {PROGRESS}"))


@contextmanager
def unchecked(target: Engine) -> Iterator[Connection]:
    """Yield a connection that checks no foreign key, for users may be missing yet, and no CHECK; commit what was written."""
    with target.connect() as connection:
        connection.detach()  # from the pool, for what is set here
        connection.execute(text("SET SESSION foreign_key_checks = 0 /*M!100201 , check_constraint_checks = 0 */"))
        yield connection
        connection.commit()


def _restored(target: Engine, sha256: str) -> list[str]:
    with target.connect() as connection:
        return [*connection.execute(RESTORED, {"sha256": sha256}).scalars()]


def _noting(statements: Iterable[bytes], sha256: str) -> Iterator[bytes]:
    """Return the statements with a note behind those of each table, and without an older one before them.

    The records of scans come back whole or not at all.
    """
    table = ""
    for statement in statements:
        section = SECTION.match(statement)
        if table and (section or statement.startswith(FOOTER)):
            yield NOTE.format(sha256, table).encode()
            table = ""
        if section:
            table = section[1].decode()
            yield FORGET.format(table).encode()
            if table not in CHAT_TABLES:  # whose rows, if there are any, are taken for the schema's own by the next restore
                yield b"\nSET autocommit = 0;"
        yield statement


def _check_loadable(target: Engine, statements: Iterable[bytes], name: str) -> None:
    """Raise BackupError unless this account may do what the dump does, as tried on a table of ours, and the server takes it."""
    longest, definers = 0, set[str]()
    for statement in statements:
        longest = max(longest, len(statement))
        if statement.startswith(DELIMITER + b";\n") and (owner := DEFINER.search(statement)):
            definers.add(owner[1].decode())
    with target.connect() as connection:
        room = connection.execute(text("SELECT @@GLOBAL.max_allowed_packet")).scalar_one()
        if longest >= room:
            raise BackupError(f"{name} has a row of {longest:,} bytes; first set the server's max_allowed_packet above that")
        try:
            for tried in TRIED:
                connection.execute(text(tried))
            for definer in sorted(definers):
                connection.execute(text(TRIGGER.format(definer.replace(":", r"\:"))))
                connection.execute(text(f"DROP TRIGGER {PROBE}"))
        except DBAPIError as error:
            raise BackupError(
                f"{target.url.username} may not restore {name} into {target.url.database}, where nothing was touched:"
                f" {error.orig}. Restore as an administrator, or leave out what it may not make: --no-triggers"
            ) from None
        finally:
            connection.execute(text("UNLOCK TABLES"))
            connection.execute(text(f"DROP TABLE IF EXISTS {PROBE}"))


def load_text(target: Engine, client: Client, chunks: Iterable[bytes], name: str) -> None:
    """Pipe SQL, whole statements, into the target's schema. Raise BackupError if it does not take all of it."""
    arguments, rest = (*SHELL_FLAGS, target.url.database or ""), iter(chunks)
    with running(client, arguments, target.url, writes=False) as child:
        assert child.process.stdin is not None  # noqa: S101 - it was started with a pipe
        try:
            child.process.stdin.write(_readable(next(rest, b""), client))
            child.process.stdin.writelines(rest)
            child.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended early; its status and words say why
        child.finish(f"restoring {name} into {target.url.database}", {})


def _readable(start: bytes, client: Client) -> bytes:
    line, end, rest = start.lstrip(b"\n").partition(b"\n")
    return rest if client.family == "MySQL" and end and line.strip() in SANDBOX else start


def orphans(target: Engine, tables: Collection[str] = CHAT_TABLES) -> list[Orphans]:
    """Return the keys between restored tables and others that do not hold now, each after one pass over the key's index."""
    with target.connect() as connection:
        # By position: MySQL 8 calls these columns by capital letters.
        keys = [tuple(row) for row in connection.execute(KEYS, {"names": list(tables)}) if not {row[0], row[2]} <= {*tables}]
        present = set(connection.execute(PRESENT).scalars())
        found = []
        for table, column, parent, parent_column in keys:
            if parent not in present:
                found.append(Orphans(f"{table}.{column}", parent, None))
                continue
            child, key, of, its_key = map(quoted, (table, column, parent, parent_column))
            missing = connection.execute(
                text(
                    f"SELECT COUNT(*) FROM {child} c LEFT JOIN {of} p ON p.{its_key} = c.{key}"  # noqa: S608 - names, quoted
                    f" WHERE c.{key} IS NOT NULL AND p.{its_key} IS NULL".replace(":", r"\:")
                )
            ).scalar_one()
            if missing:
                found.append(Orphans(f"{table}.{column}", parent, missing))
        return found
