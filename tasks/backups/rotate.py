"""Delete the backups that are past their keep: only behind a newer one that has just been verified."""

from datetime import date
from pathlib import Path
from typing import NamedTuple

from tasks import files
from tasks.backups import folder, manifest, months
from tasks.backups.errors import BackupError
from tasks.backups.folder import Tick
from tasks.backups.manifest import Kind
from tasks.backups.ship import STATE, Bucket, Shipped


class Plan(NamedTuple):
    """What rotation deletes (without a month: in the folder), and a sentence about each that it neither counts nor deletes."""

    expired: list[Shipped]
    ignored: list[str]


def rotate_local(into: Path, kind: Kind, keep: int, today: date, passphrases: list[bytes], tick: Tick, *, delete: bool) -> Plan:
    """Find the dumps or archives that are older than the newest `keep` days, until today, with a whole one; oldest first.

    Days are counted and not files, so that a day of many dumps pushes no other day out. One that is not whole does not count
    as kept, and goes when its day is past. To `delete` them the caller holds the folder's lock: raise BackupError, with nothing
    deleted, if the newest one is not what its manifest says.
    """
    names, ignored = folder.names(into, kind, today), folder.ahead(into, kind, today)
    days = sorted({backup.day for backup in folder.whole(into, kind, today)})
    old = [name for name in names if len(days) > keep and folder.day_of(name) < days[-keep]]
    plan = Plan([Shipped("", name, _size(into / name), committed=True) for name in old], ignored)
    newest = folder.newest(into, kind, today)
    if not delete or not old or newest is None:
        return plan
    try:
        folder.check_bytes(newest, passphrases, tick)
    except BackupError as error:
        raise BackupError(f"nothing was rotated, since the newest backup is no good: {error}") from error
    for name in old:
        # In this order a run cut off between the two leaves a manifest alone, which counts as nothing and goes next time.
        for suffix in ("", manifest.SUFFIX, STATE):
            (into / (name + suffix)).unlink(missing_ok=True)
    files.sync(into)
    return plan


def rotate_months(bucket: Bucket, keep: int, today: date, passphrases: list[bytes], tick: Tick, *, delete: bool) -> Plan:
    """Find, or `delete`, what is older in the bucket than the newest `keep` months with a genuine archive; none if `keep` is 0.

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
    for archive in old if delete else ():
        bucket.delete(archive)
    return Plan(old, ignored + false)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
