"""Which backups count, and the deletion of those past their keep: only behind a newer one that has just been verified.

Archives in the bucket count for their month (genuine ones, made in it or up to seven days before it) or their day. Who may
write to the bucket chooses keys; what decides is the archive's name, which its manifest's signature covers.
"""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from tasks.backups import folder
from tasks.backups.errors import BackupError, StoppedError
from tasks.backups.folder import Tick
from tasks.backups.manifest import Kind
from tasks.backups.ship import FOLDERS, MOST_VERSIONS, Bucket, Shipped

BEFORE = timedelta(days=7)
"""So old may the newest archive be on a month's first day; archives are made each week."""
MOST_FALSE = 20
"""Archives that are not genuine cost a second each; after so many no more are looked at."""


class Selected(NamedTuple):
    """Backups, oldest first (without a month: of the folder), and a sentence about each that counts as nothing and stays."""

    backups: list[Shipped]
    ignored: list[str]


def fitting(shipped: Iterable[Shipped], today: date) -> Selected:
    """Return those whose names fit their month; whether they are genuine, only `genuine` knows. What is cut off is left out."""
    found = Selected([], [])
    for archive in shipped:
        if archive.committed and (why := misfit(archive, today)):
            found.ignored.append(f"{archive} {why}, so it counts as nothing")
        elif archive.committed:
            found.backups.append(archive)
    return found


def misfit(archive: Shipped, today: date) -> str | None:
    """Return why an archive cannot count for its month, or its day, None if it can."""
    day = folder.day_of(archive.name)
    if day > today or archive.period > str(today):
        return "is dated after today"
    if archive.tier == "monthly" and archive.month not in {f"{day:%Y-%m}", f"{day + BEFORE:%Y-%m}"}:
        return f"was made on {day}, neither in that month nor in the seven days before it"
    return None


def genuine(bucket: Bucket, archives: list[Shipped], most: int, passphrases: list[bytes], tick: Tick | None = None) -> Selected:
    """Return an archive for each of the newest `most` months, or days, that have one which is what its signed manifest says.

    S3's own checksum of the object tells. Where S3 keeps none, the object is read, unless no `tick` is given to be told of it:
    then its size and what was written down beside it are believed.
    """
    found = Selected([], [])
    for archive in reversed(archives):
        if found.backups and archive.period == found.backups[0].period:
            continue
        if len(found.backups) == most or gave_up(bucket, found.ignored):
            break
        try:
            if not bucket.check(archive, passphrases) and tick:
                bucket.read(archive, passphrases, tick)
        except StoppedError:
            raise
        except BackupError as error:
            found.ignored.append(f"{archive} counts as nothing: {error}")
        else:
            found.backups.insert(0, archive)
    return found


def gave_up(bucket: Bucket, false: list[str]) -> bool:
    """Return whether so many are `false`, or so many versions of manifests, that older archives were not looked at."""
    return len(false) == MOST_FALSE or bucket.refused >= MOST_VERSIONS


def rotate_local(
    into: Path, kind: Kind, keep: int, today: date, passphrases: list[bytes], tick: Tick, *, delete: bool, thin: bool = False
) -> Selected:
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
    plan = Selected([Shipped("", name, _size(into / name), committed=True) for name in old], ignored)
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
) -> Selected:
    """Find, or `delete`, what is older in the bucket than a tier's newest `keep` months, or days, with a genuine archive.

    None if `keep` is 0. What fails its check counts as nothing, so that a fault can only keep more. What does not fit its month
    is left alone.
    """
    shipped = [archive for archive in bucket.shipped() if archive.tier == tier]
    fits, ignored = fitting(shipped, today)
    if not keep or len({archive.period for archive in fits}) <= keep:
        return Selected([], ignored)
    kept, false = genuine(bucket, fits, keep, passphrases, tick)
    if len(kept) < keep:
        return Selected([], ignored + false)
    old = [archive for archive in shipped if archive.period < kept[0].period and not misfit(archive, today)]
    locked = [archive for archive in old if delete and not bucket.delete(archive)]
    why = "stays, for S3 denies its deletion: it is locked, or s3:DeleteObjectVersion is lacking"
    ignored += [f"{archive} {why}" for archive in locked]
    return Selected([archive for archive in old if archive not in locked], ignored + false)


def missing(recorded: Iterable[tuple[str, str]], there: list[Shipped], keep: Mapping[str, int]) -> list[str]:
    """Return which of the `recorded` archives, by tier and name, are not `there`, though no rotation has deleted them.

    `keep` has the months, or days, of each tier that is looked at, 0 for all.
    """
    lacking = list[str]()
    for tier, most in keep.items():
        own = [archive for archive in there if archive.tier == tier]
        kind = FOLDERS.get(tier, "weekly")  # of the database's rows, which others may write, too
        names = {name for its_tier, name in recorded if its_tier == tier and folder.kind_of(name) == kind}
        names -= {archive.name for archive in own}
        # Its month is that of its name, or the next one.
        gone = [Shipped(tier if tier in FOLDERS else f"{folder.day_of(name):%Y-%m}", name, 0, committed=True) for name in names]
        first = min(sorted({archive.period for archive in own + gone})[-most:], default="")
        lacking += sorted(f"{tier} {archive.name}" for archive in gone if archive.period >= first)
    return lacking


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
