"""Archive before delete: the rows of each batch are in a file of their own, and that on the disk, before they are deleted.

A file is gzip of SQL that a stock client loads (docs/retention.md): an INSERT a row, its values written by the server itself,
so that no type passes through Python. It is written, and uploaded if S3 is configured, while no transaction is open; the delete
then locks its rows and leaves those that changed since. So a file may hold rows that were kept after all, but every deleted row
is in a file.
"""

import base64
import gzip
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Connection, Engine, text

from db.batches.target import Target, Value
from db.rows import quoted
from settings import ConfigurationError, get_settings
from tasks import files, s3
from tasks.retention.policies import Policy

log = structlog.get_logger(__name__)

SUFFIX = ".sql.gz"

# Generated columns cannot be written back.
COLUMNS = text("""
    SELECT column_name, LOWER(data_type) FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = :table AND COALESCE(generation_expression, '') = ''
    ORDER BY ordinal_position
""")

# How the server writes a value so that it reads the very same one. NULL is written as a word, for SQL's own NULL is what each
# of these becomes if it is longer than max_allowed_packet.
BYTES = "IF({0} IS NULL, 'NULL', CONCAT('X''', HEX({0}), ''''))"
FLOAT = "QUOTE({0} * 1e0)"  # all its digits, where a FLOAT alone is rounded to six
TEXT = r"REPLACE(REPLACE(QUOTE(CONVERT({0} USING utf8mb4)), '\n', '\\n'), '\r', '\\r')"  # on one line; also numbers and times
FORMS = {
    "json": f"IF(COALESCE(LENGTH({{0}}), 1), {TEXT}, NULL)",  # MySQL's, which becomes an empty text instead, as no JSON is
    "bit": "IF({0} IS NULL, 'NULL', CONCAT('b''', BIN({0} + 0), ''''))",
    "float": FLOAT,
    "double": FLOAT,
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector"), BYTES),
    **dict.fromkeys(("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"), BYTES),
    **dict.fromkeys(("geometrycollection", "geomcollection"), BYTES),
}

# As in a dump, but that foreign keys are looked at: a row whose conversation is gone is refused.
HEAD = "SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO', autocommit = 0;"


class ArchiveError(Exception):
    """Rows could not be archived; the text is a sentence."""


def destination(policy: Policy) -> Path:
    """Return the folder of the archives. Raise ConfigurationError if there is none."""
    folder = get_settings().retention_archive_dir
    if folder is None:
        raise ConfigurationError(f"RETENTION_ARCHIVE_DIR is not set, and {policy.name} archives what it deletes")
    return folder


class Archive:
    """Keeps the rows of one run, a file for each batch: `DIR/policy/TIME-runN/000001.sql.gz`, and the same in S3."""

    def __init__(self, engine: Engine, policy: Policy, run: int) -> None:
        self._engine = engine
        assert isinstance(policy.target, Target)  # noqa: S101 - files are not archived
        self._target = policy.target
        self._name = f"{policy.name}/{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-run{run}"
        self._folder = destination(policy) / self._name
        self._s3_uri = get_settings().retention_archive_s3_uri
        self._batch = 0
        self._rows: dict[Value, set[bytes | None]] = {}
        with engine.connect() as connection:
            columns = {quoted(name): kind for name, kind in connection.execute(COLUMNS, {"table": self._target.table})}
        self._insert = f"INSERT INTO `{self._target.table}` ({', '.join(columns)}) VALUES".encode()
        self._values = ", ',', ".join(FORMS.get(kind, TEXT).format(name) for name, kind in columns.items())

    def keep(self, keys: Sequence[Value]) -> None:
        """Store the rows durably. Raise ArchiveError if that fails."""
        self._batch += 1
        path = self._folder / f"{self._batch:06d}{SUFFIX}"
        try:
            _make_folder(self._folder)
            with (
                files.replacing(path) as file,
                gzip.GzipFile("", "wb", 6, file, mtime=0) as archive,
                self._engine.connect() as connection,
            ):
                archive.write(f"{HEAD}\n".encode())
                self._rows = self._read(connection, keys, lambda row: archive.write(b"%b (%b);\n" % (self._insert, row)))
                archive.write(b"COMMIT;\n")
        except OSError as error:
            raise ArchiveError(f"archive {path} cannot be written: {error.strerror}") from error
        if self._s3_uri:
            _upload(path, f"{self._s3_uri}/{self._name}/{path.name}")

    def unchanged(self, connection: Connection, keys: Sequence[Value]) -> list[Value]:
        """Lock the rows that no one else holds; return the keys whose rows are all there as they were archived."""
        now = self._read(connection, keys, lock=" FOR UPDATE SKIP LOCKED")
        return [key for key, rows in now.items() if rows == self._rows.get(key) and None not in rows]

    def _read(
        self, connection: Connection, keys: Sequence[Value], take: Callable[[bytes], object] = len, lock: str = ""
    ) -> dict[Value, set[bytes | None]]:
        """Return the rows' SHA-256 by key, None of one that is too long to be archived and stays. They come one by one, for a
        batch may not fit into memory; `take` is given each.
        """
        key, table = self._target.key.column, self._target.table
        rows: defaultdict[Value, set[bytes | None]] = defaultdict(set)
        for value, row in connection.exec_driver_sql(
            f"SELECT {key}, CAST(CONCAT({self._values}) AS BINARY) FROM {table} FORCE INDEX ({self._target.key.index})"  # noqa: S608 - names of the schema
            f" WHERE {self._target.among(keys)} ORDER BY {key}{lock}",
            execution_options={"yield_per": 1, "no_parameters": True},  # a % in a name is one
        ):
            if row is None:
                log.warning("row not archived, for it is longer as SQL than max_allowed_packet", table=table, row=value)
                rows[value].add(None)
                continue
            rows[value].add(hashlib.sha256(row).digest())
            take(row)
        return rows


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, for the owner alone, so that they are on disk before anything relies on them."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)
            files.sync(path.parent)


def _upload(path: Path, uri: str) -> None:
    """Put a file at `s3://bucket/key`; it is there whole once this returns. Raise ArchiveError."""
    where = urlsplit(uri)
    try:
        client = s3.make_client()
        with path.open("rb") as file, s3.asking(path.stat().st_size):
            checksum = base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()
            file.seek(0)
            client.put_object(Bucket=where.netloc, Key=where.path.lstrip("/"), Body=file, ChecksumSHA256=checksum)
    except s3.S3Error as error:
        raise ArchiveError(f"{uri} did not reach S3: {error}") from error
