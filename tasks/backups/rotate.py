"""Delete the backups that are past their keep: only behind a newer one that has just been verified."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tasks import files
from tasks.backups import folder, manifest, months
from tasks.backups.errors import BackupError
from tasks.backups.folder import Tick
from tasks.backups.manifest import Kind
from tasks.backups.ship import STATE, Bucket, Shipped


@dataclass(frozen=True, slots=True)
class Expired:
    """A backup that rotation deletes. `month` is set for one in the bucket."""

    name: str
    bytes: int
    month: str = ""

    def __str__(self) -> str:
        return f"{self.month}/{self.name}" if self.month else self.name


class Plan(NamedTuple):
    """What rotation deletes, and a sentence about each artefact that it neither counts nor deletes."""

    expired: list[Expired]
    ignored: list[str]


def plan_local(into: Path, kind: Kind, keep: int, today: date) -> Plan:
    """Find the dumps or archives that are older than the newest `keep` days, until today, with a whole one; oldest first.

    Days are counted and not files, so that a day of many dumps pushes no other day out. One that is not whole does not count
    as kept, and goes when its day is past.
    """
    names, ignored = folder.names(into, kind, today), folder.ahead(into, kind, today)
    days = sorted({backup.day for backup in folder.whole(into, kind, today)})
    if len(days) <= keep:
        return Plan([], ignored)
    return Plan([Expired(name, _size(into / name)) for name in names if folder.day_of(name) < days[-keep]], ignored)


def prune_local(into: Path, kind: Kind, keep: int, today: date, passphrases: list[bytes], tick: Tick) -> Plan:
    """Delete what `plan_local` finds. The caller holds the folder's lock.

    Raise BackupError, with nothing deleted, if the newest one is not what its manifest says.
    """
    plan = plan_local(into, kind, keep, today)
    newest = folder.newest(into, kind, today)
    if not plan.expired or newest is None:
        return Plan([], plan.ignored)
    try:
        folder.check_bytes(newest, passphrases, tick)
    except BackupError as error:
        raise BackupError(f"nothing was rotated, since the newest backup is no good: {error}") from error
    for backup in plan.expired:
        # In this order a run cut off between the two leaves a manifest alone, which counts as nothing and goes next time.
        for suffix in ("", manifest.SUFFIX, STATE):
            (into / (backup.name + suffix)).unlink(missing_ok=True)
    files.sync(into)
    return plan


def plan_months(bucket: Bucket, keep: int, today: date, passphrases: list[bytes], tick: Tick) -> Plan:
    """Find what is older in the bucket than the newest `keep` months with a genuine archive; nothing if `keep` is 0.

    What fails its check counts as nothing, so that a fault can only keep more. What does not fit its month is left alone.
    """
    shipped = bucket.shipped()
    fitting, ignored = months.fitting(shipped, today)
    if not keep or len({archive.month for archive in fitting}) <= keep:
        return Plan([], ignored)
    kept, false = months.genuine(bucket, fitting, keep, passphrases, tick)
    if len(kept) < keep:
        return Plan([], ignored + false)
    old = [archive for archive in shipped if archive.month < kept[0].month and not months.misfit(archive, today)]
    return Plan([Expired(archive.name, archive.bytes, archive.month) for archive in old], ignored + false)


def prune_months(bucket: Bucket, keep: int, today: date, passphrases: list[bytes], tick: Tick) -> Plan:
    """Delete what `plan_months` finds."""
    plan = plan_months(bucket, keep, today, passphrases, tick)
    for archive in plan.expired:
        bucket.delete(Shipped(archive.month, archive.name, archive.bytes, committed=True))
    return plan


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
