"""Retention of files: those of a folder that are older than a cutoff, deleted one by one."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from db.batches.batch import Record
from db.batches.count import Count
from db.batches.walk import Limits, Progress
from db.transactions import transact
from settings import ConfigurationError, get_settings
from tasks.words import printable


@dataclass(frozen=True, slots=True)
class Files:
    """The files of the folder that `setting` names. Before each is deleted, `record` is executed: SQL over `:name`, `:stem`."""

    setting: str
    pattern: str
    record: str = ""

    @property
    def folder(self) -> Path:
        """The folder. Raise ConfigurationError if there is none: a bucket has lifecycle rules of its own."""
        where = str(getattr(get_settings(), self.setting) or "s3://")
        if where.startswith("s3://"):
            raise ConfigurationError(f"{self.setting.upper()} names no folder; in a bucket, lifecycle rules delete what is old")
        return Path(where.removeprefix("file://"))

    def older(self, cutoff: datetime) -> Iterator[tuple[Path, datetime]]:
        """Yield the files that were written before a time in UTC, each with when that was."""
        for path in self.folder.glob(self.pattern):
            with suppress(FileNotFoundError):
                # A file system holds times outside of all years.
                if (written := path.lstat().st_mtime) < cutoff.replace(tzinfo=UTC).timestamp():
                    yield path, datetime.fromtimestamp(max(written, 0), UTC).replace(tzinfo=None)


def count(files: Files, cutoff: datetime) -> Count:
    """Count the files that a run would delete, and their ages."""
    ages = [written for _, written in files.older(cutoff)]
    return Count(len(ages), min(ages, default=None), max(ages, default=None), complete=True)


def delete(
    engine: Engine,
    files: Files,
    cutoff: datetime,
    limits: Limits,
    *,
    record: Record,
    halt: Callable[[], str | None],
    progress: Callable[[Progress], None],
) -> Progress:
    """Delete the files, and the run's folders of which nothing is left; return how it ended.

    A file is recorded as deleted first: one that a killed run has left is found by the next. One that cannot be deleted is
    passed over; the OSError of the last is raised in the end.
    """
    failure: OSError | None = None
    began, state = time.monotonic(), Progress()

    def write(connection: Connection, path: Path) -> None:
        if files.record:
            # A name that is no text is none that the database knows.
            connection.execute(text(files.record), {"name": printable(path.name), "stem": printable(path.stem)})

    why = None
    for path, _ in files.older(cutoff):
        if why := halt() or limits.reached(state.rows, time.monotonic() - began):
            break
        transact(engine, partial(write, path=path))
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            failure = error
            continue
        transact(engine, lambda connection: record(connection, 1))
        if path.parent != files.folder:
            with suppress(OSError):
                path.parent.rmdir()
        state = replace(state, rows=state.rows + 1, batches=state.batches + 1)
        progress(state)
    if failure:
        raise failure
    return replace(state, why=why or "finished")
