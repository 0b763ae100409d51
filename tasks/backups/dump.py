"""Dump the chat tables into one compressed file: one snapshot, streamed, counted, checked and only then committed."""

import hashlib
import os
import select
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import zstandard
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from db.engine import READ_WRITE
from db.models import CHAT_TABLES, DUMPED_TABLES
from db.needs import family_of
from db.rows import quoted
from tasks.backups import folder, manifest
from tasks.backups.client import (
    DUMP_FLAGS,
    DUMPERS,
    FAMILY_DUMP_FLAGS,
    PIPE_BYTES,
    Child,
    Client,
    find_client,
    running,
    schema_engine,
    server_family,
)
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup, Tick
from tasks.backups.manifest import Binlog, Manifest, Table
from tasks.backups.passphrases import ITERATIONS
from tasks.backups.scan import DumpScan, TableScan

LEVEL = 1  # of chat text the third makes hardly less, and takes twice as long
# A dump that says nothing for so long waits for a lock or a server that will not answer.
SILENCE_SECONDS = 600
POLL_SECONDS = 1

# What mariadb-dump 10.11 may end with without a word on stderr.
EXIT_CODES = {
    2: "the server refused a statement, or the connection was lost between two",
    3: "the server ended a query, or the connection was lost, within a table",
}

# Nine reads at the end of a primary key.
LOWEST_IDS = text(
    " UNION ALL ".join(f"SELECT '{table}' AS name, MIN(id) AS id FROM {table}" for table in CHAT_TABLES)  # noqa: S608 - ours
)
# In bytes, of the tables that are there.
SIZES = text(
    "SELECT table_name, COALESCE(data_length, 0) FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_name IN :names"
)
SERVER = text(
    "SELECT VERSION() AS version, UTC_TIMESTAMP() AS now, @@GLOBAL.read_only AS read_only, @@GLOBAL.log_bin AS log_bin"
)
JSON_COLUMNS = text(
    "SELECT table_name, column_name FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND table_name IN :names AND data_type = 'json' ORDER BY table_name"
)
# A value takes at most so many times its bytes as text (a control character six), and none has an empty one.
UNSHOWN = "(JSON_STORAGE_SIZE({0}) * 7 > @@max_allowed_packet AND COALESCE(LENGTH({0}), 0) = 0)"
# MySQL's place in its binary log, by its newer and its older name; both need REPLICATION CLIENT.
PLACES = ("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS")


def dump(engine: Engine, into: Path, passphrase: bytes | None, tick: Tick, iterations: int = ITERATIONS) -> Backup:
    """Make a dump in the folder `into`, named by the database's day in UTC, and return it. A passphrase signs its manifest.

    The caller holds the folder's lock. Raise BackupError if the dump could not be made; what is left of it, nobody counts, and
    the next who holds the lock has removed it.
    """
    started = time.monotonic()
    with engine.connect() as connection:
        server = connection.execute(SERVER).one()
        sizes = {name: int(size) for name, size in connection.execute(SIZES, {"names": DUMPED_TABLES})}
    if server.read_only not in READ_WRITE:
        raise BackupError(
            f"{engine.url.host} is read-only, as a replica is, and records no backup: DATABASE_URL must name the primary"
        )
    name = folder.fresh_name(into, "daily", server.now.date(), server.now)
    if missing := [table for table in DUMPED_TABLES if table not in sizes]:
        raise BackupError(f"the database {engine.url.database} has no table {', '.join(missing)}; nothing was dumped")
    last = folder.newest(into, "daily")
    folder.check_space(into, last.signed.manifest.bytes * 5 // 4 if last else sum(sizes.values()) // 2)
    client = find_client(DUMPERS[family_of(server.version)])
    before = _lowest_ids(engine)
    mysql = family_of(server.version) == "MySQL"
    partial = into / (name + folder.PARTIAL)
    with ThreadPoolExecutor(1) as beside:
        signing = beside.submit(manifest.signing_keys, passphrase, iterations) if passphrase else None
        place = _place(engine) if server.log_bin and mysql else None
        flags = ("--master-data=2",) if server.log_bin and not mysql and client.family == "MariaDB" else ()
        scan = DumpScan()
        size, sha256 = _write(engine, client, scan, partial, tick, flags)
        _check_not_empty(before, _lowest_ids(engine), scan.rows)
        if folder.file_sha256(partial, lambda _: tick(0)) != sha256:
            raise BackupError(f"the disk of {into} returns other bytes than were written; the dump does not count")
        if mysql:
            _check_json(engine)
        if signing:
            signing.result()  # which `compose` takes
        made = Manifest(
            kind="daily",
            name=name,
            created_at=server.now.isoformat() + "Z",
            bytes=size,
            sha256=sha256,
            plain_bytes=scan.bytes,
            milliseconds=round((time.monotonic() - started) * 1000),
            database=engine.url.database or "",
            server=server.version,
            client=client.version,
            tables={table: Table(rows=rows) for table, rows in scan.rows.items()},
            binlog=place or (Binlog(file=scan.place[0], position=scan.place[1], gtid=scan.gtid) if scan.place else None),
        )
        return folder.commit(into, name, manifest.compose(made, passphrase, iterations))


def now(engine: Engine) -> datetime:
    """Return the time by the database's clock, in UTC."""
    with engine.connect() as connection:
        moment: datetime = connection.execute(SERVER).one().now
        return moment.replace(tzinfo=UTC)


def today(engine: Engine) -> date:
    """Return the day by the database's clock, in UTC."""
    return now(engine).date()


def _place(engine: Engine) -> Binlog | None:
    """Return where a MySQL's binary log stands now, None where this account may not know."""
    for question in PLACES:
        with suppress(DBAPIError), engine.connect() as connection:
            row = connection.execute(text(question)).one()
            return Binlog(file=row[0], position=row[1], gtid=row[4].replace("\n", ""))
    return None


def _check_json(engine: Engine) -> None:
    """Raise BackupError if a JSON's text is longer than max_allowed_packet: MySQL gives an empty one instead, which is dumped
    without a word, and refused by whoever restores it. It takes a pass over each table that has such columns.
    """
    with schema_engine(engine.url, str(engine.url.database)) as patient, patient.connect() as connection:
        connection.execute(text("SET SESSION max_execution_time = 0"))
        columns = connection.execute(JSON_COLUMNS, {"names": DUMPED_TABLES}).all()
        for table, of_table in groupby(columns, key=itemgetter(0)):
            unshown = " OR ".join(UNSHOWN.format(quoted(column).replace(":", r"\:")) for _, column in of_table)
            row = connection.execute(text(f"SELECT MIN(id) FROM {quoted(table)} WHERE {unshown}")).scalar()  # noqa: S608 - names, quoted
            if row is not None:
                raise BackupError(
                    f"row {row} of {table} holds a JSON whose text is longer than the server's max_allowed_packet, so that"
                    " no dump has it; raise that, or shorten it"
                )


def _write(engine: Engine, client: Client, scan: DumpScan, path: Path, tick: Tick, flags: tuple[str, ...]) -> tuple[int, str]:
    """Write a compressed dump, shown to `scan` too; return its size and SHA-256. Raise BackupError if it is not complete."""
    digest, size = hashlib.sha256(), 0
    with folder.writing(path) as file:
        for packed in _compressed(dump_text(engine, client, scan, tick, flags=flags)):
            size += file.write(packed)
            digest.update(packed)
    return size, digest.hexdigest()


def _compressed(text: Iterator[bytes]) -> Iterator[bytes]:
    # In a thread beside the scan; of 800,000 messages that is a seventh of the time.
    parameters = zstandard.ZstdCompressionParameters.from_level(LEVEL, write_checksum=True, threads=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    yield from filter(None, map(compressor.compress, text))
    yield compressor.flush()


def tables_in(engine: Engine, tick: Tick, tables: Collection[str]) -> tuple[dict[str, TableScan], str]:
    """Dump these tables for nobody; return the rows and digest of each, and the client's version."""
    client, scan = find_client(DUMPERS[server_family(engine)]), DumpScan(digests=True)
    for _ in dump_text(engine, client, scan, tick, tables):
        pass
    return scan.tables, client.version


def dump_text(
    engine: Engine,
    client: Client,
    scan: DumpScan,
    tick: Tick,
    tables: Collection[str] = DUMPED_TABLES,
    flags: tuple[str, ...] = (),
) -> Iterator[bytes]:
    """Return a dump's text as it comes, shown to `scan` too. Raise BackupError at its end unless it is complete."""
    arguments = (*DUMP_FLAGS, *FAMILY_DUMP_FLAGS[client.family], *flags, engine.url.database or "", *tables)
    with running(client, arguments, engine.url, writes=True) as child:
        for chunk in _output(child, tick):
            scan.feed(chunk)
            yield chunk
        child.finish("dumping", EXIT_CODES)
    if not scan.complete:
        raise BackupError(f"{Path(client.program).name} ended without its closing line, so the dump is cut off")
    if missing := [table for table in tables if table not in scan.tables]:
        raise BackupError(f"the dump lacks {', '.join(missing)}")


def _output(child: Child, tick: Tick) -> Iterator[bytes]:
    assert child.process.stdout is not None  # noqa: S101 - it was started with a pipe
    pipe = child.process.stdout.fileno()
    ready = select.poll()
    ready.register(pipe, select.POLLIN)
    heard = time.monotonic()
    while True:
        if not ready.poll(POLL_SECONDS * 1000):
            tick(0)
            if time.monotonic() - heard > SILENCE_SECONDS:
                raise BackupError(f"the dump stood still for {SILENCE_SECONDS} s; look for a table lock (SHOW PROCESSLIST)")
            continue
        chunk = os.read(pipe, PIPE_BYTES)
        if not chunk:
            return
        heard = time.monotonic()
        tick(len(chunk))
        yield chunk


def _lowest_ids(engine: Engine) -> Mapping[str, int | None]:
    with engine.connect() as connection:
        return {row.name: row.id for row in connection.execute(LOWEST_IDS)}


def _check_not_empty(before: Mapping[str, int | None], after: Mapping[str, int | None], rows: Mapping[str, int]) -> None:
    """Raise BackupError if a row that was there before and after the dump is not in it: the silent empty dump."""
    for name, count in rows.items():
        if count == 0 and before.get(name) is not None and before.get(name) == after.get(name):
            raise BackupError(f"the dump has no row of {name}, though row {before[name]} was there all the time")
