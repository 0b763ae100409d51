"""Delete the backups that are past their keep: only behind a newer one that has just been verified."""

from dataclasses import dataclass
from pathlib import Path

from tasks import files
from tasks.backups import folder, manifest, verify
from tasks.backups.errors import BackupError
from tasks.backups.folder import Tick
from tasks.backups.manifest import Kind
from tasks.backups.ship import STATE, Bucket, Shipped


@dataclass(frozen=True, slots=True)
class Doomed:
    """A backup that rotation deletes. `month` is set for one in the bucket."""

    name: str
    bytes: int
    month: str = ""

    def __str__(self) -> str:
        return f"{self.month}/{self.name}" if self.month else self.name


def plan_local(into: Path, kind: Kind, keep: int) -> list[Doomed]:
    """Return which dumps or archives are older than the newest `keep` days that have a whole one, oldest first.

    Days are counted and not files, so that a day of many dumps pushes no other day out. One that is not whole does not count
    as kept, and goes when its day is past.
    """
    names = folder.names(into, kind)
    days = sorted({folder.day_of(name) for name in names if _is_whole(into, name)})
    if len(days) <= keep:
        return []
    return [Doomed(name, _size(into / name)) for name in names if folder.day_of(name) < days[-keep]]


def prune_local(into: Path, kind: Kind, keep: int, passphrases: list[bytes], tick: Tick) -> list[Doomed]:
    """Delete what `plan_local` returns. The caller holds the folder's lock.

    Raise BackupError, with nothing deleted, if the newest one is not what its manifest says.
    """
    doomed = plan_local(into, kind, keep)
    newest = folder.newest(into, kind)
    if not doomed or newest is None:
        return []
    try:
        verify.check_bytes(newest, passphrases, tick)
    except BackupError as error:
        raise BackupError(f"nothing was rotated, since the newest backup is no good: {error}") from error
    for backup in doomed:
        # In this order a run cut off between the two leaves a manifest alone, which counts as nothing and goes next time.
        (into / backup.name).unlink(missing_ok=True)
        (into / (backup.name + manifest.SUFFIX)).unlink(missing_ok=True)
        (into / (backup.name + STATE)).unlink(missing_ok=True)
    files.sync(into)
    return doomed


def plan_months(shipped: list[Shipped], keep: int) -> list[Doomed]:
    """Given what is in the bucket, return what is older than the newest `keep` months that count; nothing if keep is 0."""
    months = sorted({archive.month for archive in shipped if archive.committed})
    if not keep or len(months) <= keep:
        return []
    return [Doomed(archive.name, archive.bytes, archive.month) for archive in shipped if archive.month < months[-keep]]


def prune_months(bucket: Bucket, keep: int, passphrases: list[bytes]) -> list[Doomed]:
    """Delete what `plan_months` returns, behind a newest archive whose signed manifest and object agree."""
    shipped = bucket.shipped()
    doomed = plan_months(shipped, keep)
    if not doomed:
        return []
    try:
        bucket.check([archive for archive in shipped if archive.committed][-1], passphrases)
    except BackupError as error:
        raise BackupError(f"nothing was rotated in {bucket.uri}, since its newest archive is no good: {error}") from error
    for archive in doomed:
        bucket.delete(Shipped(archive.month, archive.name, archive.bytes, committed=True))
    return doomed


def _is_whole(into: Path, name: str) -> bool:
    try:
        folder.load(into, name)
    except BackupError:
        return False
    return True


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
