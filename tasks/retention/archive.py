"""Archive before delete: write the rows of each batch to a durable file of their own before they are deleted.

A file is gzip of JSON lines: a head that names table and columns, a list per row, and a foot with the number of rows and the
SHA-256 of all lines before it. It is written aside, fsynced and renamed, and uploaded if S3 is configured, while no transaction
is open; the delete then locks its rows and leaves those that changed since. So a file may hold rows that were kept after all,
but every deleted row is in a file.
"""

import base64
import gzip
import hashlib
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, bindparam, text

from db.batches.target import Value
from settings import ConfigurationError, get_settings
from tasks import files
from tasks.retention.policies import Policy

FORMAT = 1
LEVEL = 6
SUFFIX = ".jsonl.gz"

# Generated columns cannot be written back.
COLUMNS = text("""
    SELECT column_name FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = :table AND COALESCE(generation_expression, '') = ''
    ORDER BY ordinal_position
""")


class ArchiveError(Exception):
    """Rows could not be archived, or an archive file cannot be trusted; the text is a sentence."""


def destination(policy: Policy) -> Path:
    """Return the folder of the archives. Raise ConfigurationError if there is none."""
    folder = get_settings().retention_archive_dir
    if folder is None:
        raise ConfigurationError(f"RETENTION_ARCHIVE_DIR is not set, and {policy.name} archives what it deletes")
    return folder


class Archive:
    """Keeps the rows of one run, a file for each batch: `folder/policy/TIME-runN/000001.jsonl.gz`. `touch` is called now and
    then while a file is sent to S3.
    """

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        run: int,
        folder: Path,
        s3_uri: str | None,
        touch: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._name = f"{policy.name}/{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}-run{run}"
        self._folder = folder / self._name
        self._s3_uri = s3_uri
        self._touch = touch
        self._batch = 0
        self._digests: dict[Value, bytes] = {}
        with engine.connect() as connection:
            self._columns: list[str] = list(connection.execute(COLUMNS, {"table": policy.target.table}).scalars())

    def keep(self, keys: Sequence[Value]) -> None:
        """Store the rows durably. Raise ArchiveError if that fails."""
        with self._engine.connect() as connection:
            rows = self._read(connection, keys, lock=False)
        self._digests = _digests(rows)
        self._batch += 1
        path = self._folder / f"{self._batch:06d}{SUFFIX}"
        try:
            _make_folder(self._folder)
            write_file(path, self._policy.target.table, self._columns, [row[1] for row in rows])
        except OSError as error:
            raise ArchiveError(f"archive {path} cannot be written: {error.strerror}") from error
        if self._s3_uri:
            from tasks.retention import ship  # with boto3, which takes a while to load

            try:
                ship.upload(path, f"{self._s3_uri}/{self._name}/{path.name}", self._touch)
            except ship.ShipError as error:
                raise ArchiveError(str(error)) from error

    def unchanged(self, connection: Connection, keys: Sequence[Value]) -> list[Value]:
        """Lock the rows that no one else holds; return the keys whose rows are all there as they were archived."""
        now = _digests(self._read(connection, keys, lock=True))
        return [key for key, digest in now.items() if self._digests.get(key) == digest]

    def _read(self, connection: Connection, keys: Sequence[Value], *, lock: bool) -> list[tuple[Value, bytes]]:
        target = self._policy.target
        columns = ", ".join(f"`{name}`" for name in self._columns)
        statement = text(
            f"SELECT {target.key.column}, {columns} FROM {target.table} FORCE INDEX (PRIMARY)"  # noqa: S608 - names of the schema
            f" WHERE {target.key.column} IN :keys ORDER BY {target.key.column}{' FOR UPDATE SKIP LOCKED' if lock else ''}"
        ).bindparams(bindparam("keys", expanding=True))
        return [(row[0], encode(row[1:])) for row in connection.execute(statement, {"keys": list(keys)})]


def encode(row: Iterable[Any]) -> bytes:
    """Return a row as one JSON line, without its end; every value as MySQL takes it back."""
    return orjson.dumps([_plain(value) for value in row])


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, int | float | str):
        return value
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime | date | timedelta | Decimal):
        return str(value)
    raise ArchiveError(f"a value of type {type(value).__name__} cannot be archived")


def _digests(rows: Iterable[tuple[Value, bytes]]) -> dict[Value, bytes]:
    """Return a digest for each key, of all its rows together."""
    lines: defaultdict[Value, list[bytes]] = defaultdict(list)
    for key, line in rows:
        lines[key].append(line)
    return {key: hashlib.sha256(b"\n".join(sorted(of_key))).digest() for key, of_key in lines.items()}


def write_file(path: Path, table: str, columns: Sequence[str], rows: Sequence[bytes]) -> None:
    """Write an archive file so that it is there whole and on disk, or not at all. Mode 0600: it holds what people said."""
    head = orjson.dumps({"format": FORMAT, "table": table, "columns": list(columns), "written_at": datetime.now(UTC)})
    lines = b"".join(line + b"\n" for line in (head, *rows))
    foot = orjson.dumps({"rows": len(rows), "sha256": hashlib.sha256(lines).hexdigest()})
    with files.replacing(path) as file:
        file.write(gzip.compress(lines + foot + b"\n", LEVEL, mtime=0))


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, for the owner alone, so that they are on disk before anything relies on them."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)
            files.sync(path.parent)


def read_file(path: Path) -> tuple[str, list[str], list[list[Any]]]:
    """Return table, columns and rows of an archive file. Raise ArchiveError unless it is whole and unaltered."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ArchiveError(f"{path} cannot be read: {error}") from error
    try:
        *lines, foot, end = content.split(b"\n")
        stated, head = _object(foot), _object(lines[0])
    except (ValueError, IndexError):
        raise ArchiveError(f"{path} is no archive of this program, or is cut short") from None
    body = b"".join(line + b"\n" for line in lines)
    if end or stated.get("sha256") != hashlib.sha256(body).hexdigest() or stated.get("rows") != len(lines) - 1:
        raise ArchiveError(f"{path} was altered or is cut short: its checksum does not match; nothing was restored")
    if head.get("format") != FORMAT:
        raise ArchiveError(f"{path} has the format {head.get('format')}; this version reads {FORMAT}")
    try:
        columns = head["columns"]
        return head["table"], columns, [_row(line, len(columns)) for line in lines[1:]]
    except (ValueError, KeyError, TypeError):
        raise ArchiveError(f"{path} names no table and columns, or a row does not fit them; nothing was restored") from None


def _object(line: bytes) -> dict[str, Any]:
    parsed = orjson.loads(line)
    if not isinstance(parsed, dict):
        raise ValueError("no JSON object")
    return parsed


def _row(line: bytes, columns: int) -> list[Any]:
    values = orjson.loads(line)
    if not isinstance(values, list) or len(values) != columns:
        raise ValueError("no row of these columns")
    return [base64.b64decode(value["base64"]) if isinstance(value, dict) else value for value in values]


def files_of(*paths: Path) -> list[Path]:
    """Return the archive files of all paths, newest first wherever they lie: of a row that was archived twice, the later state
    is the true one.
    """
    files = {file.resolve() for path in paths for file in (path.rglob(f"*{SUFFIX}") if path.is_dir() else (path,))}
    return sorted(files, key=lambda file: (_written_at(file), file), reverse=True)


def _written_at(path: Path) -> str:
    """Return when an archive file was written, by its head; nothing for one that `read_file` will refuse."""
    try:
        with gzip.open(path) as file:
            return str(_object(file.readline()).get("written_at"))
    except (OSError, EOFError, ValueError, zlib.error):
        return ""
