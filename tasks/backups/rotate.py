"""Delete the backups that are past their keep: only behind a newer one that has just been verified."""

from datetime import date
from pathlib import Path
from typing import NamedTuple

from tasks.backups import folder, months
from tasks.backups.errors import BackupError
from tasks.backups.folder import Tick
from tasks.backups.manifest import Kind
from tasks.backups.ship import Bucket, Shipped


class Plan(NamedTuple):
    """What rotation deletes (without a month: in the folder), and a sentence about each that it neither counts nor deletes."""

    expired: list[Shipped]
    ignored: list[str]


def rotate_local(
    into: Path, kind: Kind, keep: int, today: date, passphrases: list[bytes], tick: Tick, *, delete: bool, thin: bool = False
) -> Plan:
    """Find the dumps or archives that are older than the newest `keep` days, until today, with a whole one; oldest first.

    Days are counted and not files, so that a day of many dumps pushes no other day out. One that is not whole does not count
    as kept, and goes when its day is past. `thin`: of days but the two newest only the last that is whole is kept.

    To `delete` them the caller holds the folder's lock: raise BackupError, with nothing deleted, if the newest one is not what
    its manifest says.
    """
    names, ignored = folder.names(into, kind, today), folder.ahead(into, kind, today)
    last = {backup.day: backup.name for backup in reversed([*folder.whole(into, kind, today)])}
    days = sorted(last)
    first = days[-keep] if len(days) > keep else date.min
    busy = days[-2] if thin and len(days) > 2 else date.min
    old = [name for name in names if (day := folder.day_of(name)) < first or (day < busy and last.get(day, name) != name)]
    plan = Plan([Shipped("", name, _size(into / name), committed=True) for name in old], ignored)
    newest = folder.newest(into, kind, today)
    if not delete or not old or newest is None:
        return plan
    try:
        folder.check_bytes(newest, passphrases, tick)
    except BackupError as error:
        raise BackupError(f"nothing was rotated, since the newest backup is no good: {error}") from error
    folder.remove(into, old)
    return plan


def rotate_shipped(
    bucket: Bucket, tier: str, keep: int, today: date, passphrases: list[bytes], tick: Tick, *, delete: bool
) -> Plan:
    """Find, or `delete`, what is older in the bucket than a tier's newest `keep` months, or days, with a genuine archive.

    None if `keep` is 0. What fails its check counts as nothing, so that a fault can only keep more. What does not fit its month
    is left alone.
    """
    shipped = [archive for archive in bucket.shipped() if archive.tier == tier]
    fitting, ignored = months.fitting(shipped, today)
    if not keep or len({archive.period for archive in fitting}) <= keep:
        return Plan([], ignored)
    kept, false = months.genuine(bucket, fitting, keep, passphrases, tick)
    if len(kept) < keep:
        return Plan([], ignored + false)
    old = [archive for archive in shipped if archive.period < kept[0].period and not months.misfit(archive, today)]
    locked = [archive for archive in old if delete and not bucket.delete(archive)]
    why = "stays, for S3 denies its deletion: it is locked, or s3:DeleteObjectVersion is lacking"
    ignored += [f"{archive} {why}" for archive in locked]
    return Plan([archive for archive in old if archive not in locked], ignored + false)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
