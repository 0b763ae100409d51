"""The backup folder, BACKUP_DIR: its files by name, its lock, and files that are there whole or not at all."""

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO

from settings import ConfigurationError
from tasks import files, words
from tasks.backups import manifest
from tasks.backups.errors import BackupError, BusyError, ChangedError
from tasks.backups.manifest import Kind, Signed

Tick = Callable[[int], None]
"""Told of each step's bytes, 0 while waiting; raises StoppedError to end the work there."""

FORMS: dict[Kind, tuple[str, str]] = {
    "daily": ("backup_chat_", ".sql.zst"),
    "weekly": ("backup_chat_week_", ".tar.enc"),
    "day": ("backup_chat_day_", ".tar.enc"),
}
"""The day stands between; a second one of a day has the time behind the day."""
NAMES = {kind: re.compile(f"{start}([0-9]{{8}})(?:_[0-9]{{6}})?{re.escape(end)}") for kind, (start, end) in FORMS.items()}
PARTIAL, UPLOAD = ".partial", ".upload"
LOCK = ".lock"
CHUNK = 1 << 20

FULL = {errno.ENOSPC, errno.EDQUOT}
# What else the disk needs: manifests, and other programs' writes while a backup grows.
SPARE_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Backup:
    """A committed backup in a folder, as its manifest tells; the artefact is not yet checked."""

    path: Path
    signed: Signed
    day: date

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def manifest_path(self) -> Path:
        return self.path.with_name(self.name + manifest.SUFFIX)


def open_folder(path: Path | None) -> Path:
    """Return BACKUP_DIR. Raise ConfigurationError if it is not there: one that is made here may hide a missing mount."""
    if path is None:
        raise ConfigurationError("BACKUP_DIR is not set; it is the folder that backups are kept in")
    if not path.is_dir():
        raise ConfigurationError(f"BACKUP_DIR {path} is no folder; mount its disk, or make it with: install -d -m 700 {path}")
    return path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work alone in the folder, and sweep up what a killed run has left. Raise BusyError at once if another works there.

    The lock is the kernel's, on a file: it goes with its process, however that ends.
    """
    with os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another backup, rotation or drill is at work in {folder}; try again when it is done") from None
        for left in folder.glob(f"*{PARTIAL}"):
            with suppress(OSError):  # it is in the way of its own name at most
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield


def kind_of(name: str) -> Kind | None:
    """Return whether a file of this name would be a dump or an archive; None for any other."""
    found = _parsed(name)
    return found[0] if found else None


def day_of(name: str) -> date:
    """Return the day in an artefact's name."""
    found = _parsed(name)
    assert found is not None  # noqa: S101 - the caller knows its kind
    return found[1]


def _parsed(name: str) -> tuple[Kind, date] | None:
    for kind, pattern in NAMES.items():
        if match := pattern.fullmatch(name):
            with suppress(ValueError):  # 20261399 is no day
                return kind, datetime.strptime(match[1], "%Y%m%d").date()  # noqa: DTZ007 - a day
    return None


def fresh_name(folder: Path, kind: Kind, day: date, moment: datetime) -> str:
    """Return a name for a new artefact that no committed one has."""
    start, end = FORMS[kind]
    name = f"{start}{day:%Y%m%d}{end}"
    return f"{start}{day:%Y%m%d}_{moment:%H%M%S}{end}" if name in names(folder, kind) else name


def names(folder: Path, kind: Kind, until: date = date.max) -> list[str]:
    """Return the artefacts of a kind that have a manifest and are not dated after `until`, oldest first."""
    found = {path.name.removesuffix(manifest.SUFFIX) for path in folder.glob(f"*{manifest.SUFFIX}")}
    return sorted(name for name in found if kind_of(name) == kind and day_of(name) <= until)


def remove(folder: Path, names: Iterable[str]) -> None:
    """Delete artefacts, and what lies beside them. One that cannot be is passed over; the OSError of the last is raised."""
    failure: OSError | None = None
    for name in names:
        try:
            # In this order a run cut off between the two leaves a manifest alone, which counts as nothing and goes next time.
            for suffix in ("", manifest.SUFFIX, UPLOAD):
                (folder / (name + suffix)).unlink(missing_ok=True)
        except OSError as error:
            failure = error
    files.sync(folder)
    if failure:
        raise failure


def ahead(folder: Path, kind: Kind, today: date) -> list[str]:
    """Return a sentence about each artefact that is dated after today: a clock was wrong, and it counts as nothing."""
    past = names(folder, kind, today)
    return [f"{name} is dated after today, so it counts as nothing" for name in names(folder, kind) if name not in past]


def load(folder: Path, name: str) -> Backup:
    """Return a backup by its artefact's name. Raise BackupError if it is not whole by its manifest and size."""
    if kind_of(name) is None:
        raise BackupError(f"{name!r} is no name of a backup; `chat-workers backups list` shows them")
    path = folder / name
    signed = manifest.read(folder / (name + manifest.SUFFIX))
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise BackupError(f"{name} is missing, though its manifest is there") from None
    except OSError as error:
        raise BackupError(f"{name} cannot be read: {error.strerror}") from None
    if size != signed.manifest.bytes:
        raise BackupError(f"{name} has {size:,} bytes where its manifest says {signed.manifest.bytes:,}")
    return Backup(path, signed, day_of(name))


def whole(folder: Path, kind: Kind, until: date = date.max) -> Iterator[Backup]:
    """Return the backups of a kind that are whole by manifest and size, and not dated after `until`, newest first."""
    for name in reversed(names(folder, kind, until)):
        with suppress(BackupError):
            yield load(folder, name)


def newest(folder: Path, kind: Kind, until: date = date.max) -> Backup | None:
    """Return the first of `whole`, None if there is none."""
    return next(whole(folder, kind, until), None)


def check_bytes(backup: Backup, passphrases: list[bytes], tick: Tick) -> bytes | None:
    """Raise ChangedError unless the artefact has the SHA-256 of its manifest, and the manifest its signature.

    An archive's manifest is always signed, and a dump's wherever there is a passphrase: a signature that is missing may have
    been cut off. Return the passphrase that signed it.
    """
    made = backup.signed.manifest
    signer = manifest.check_signature(backup.signed, passphrases) if passphrases or made.kind != "daily" else None
    if file_sha256(backup.path, tick) != made.sha256:
        raise ChangedError(f"{backup.name} was changed after it was made: its SHA-256 is not that of its manifest")
    return signer


def check_space(folder: Path, needed: int) -> None:
    """Raise BackupError if the folder's disk has not `needed` bytes to spare."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise BackupError(
            f"{folder} has {words.size(free)} free and this needs about {words.size(needed + SPARE_BYTES)};"
            " make room or keep fewer (BACKUP_KEEP_DAILY, BACKUP_KEEP_WEEKLY)"
        )


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Write a new private file that is on the disk when the block ends; if it fails, none is left.

    Raise BackupError if the disk fills up.
    """
    try:
        with files.writing(path) as file:
            yield file
    except OSError as error:
        if error.errno in FULL:
            raise BackupError(f"the disk of {path.parent} is full; the unfinished {path.name} was removed") from None
        raise


def commit(folder: Path, name: str, text: bytes) -> Backup:
    """Give the finished `name.partial` its name and then, as the mark that it counts, its manifest; return the backup."""
    mark = name + manifest.SUFFIX
    with writing(folder / (mark + PARTIAL)) as file:
        file.write(text)
    for part in (name, mark):
        (folder / (part + PARTIAL)).rename(folder / part)
    files.sync(folder)
    return load(folder, name)


def chunks(path: Path, tick: Tick, size: int = CHUNK) -> Iterator[bytes]:
    """Return a file's bytes in pieces of this size, the last may be shorter."""
    with path.open("rb") as file:
        while chunk := file.read(size):
            tick(len(chunk))
            yield chunk


def chunks_of_disk(path: Path, tick: Tick, size: int = CHUNK) -> Iterator[bytes]:
    """Return a file's bytes as the disk has them, not as they may still be in memory."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return chunks(path, tick, size)


def file_sha256(path: Path, tick: Tick) -> str:
    """Return the SHA-256 of a file as the disk has it."""
    digest = hashlib.sha256()
    for chunk in chunks_of_disk(path, tick):
        digest.update(chunk)
    return digest.hexdigest()
