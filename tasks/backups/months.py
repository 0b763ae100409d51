"""Which archives in the bucket count for their month (genuine ones, made in it or up to seven days before it) or their day.

Who may write to the bucket chooses keys; what decides is the archive's name, which its manifest's signature covers.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import NamedTuple

from tasks.backups import folder
from tasks.backups.errors import BackupError, StoppedError
from tasks.backups.folder import Tick
from tasks.backups.ship import Bucket, Shipped

BEFORE = timedelta(days=7)
"""So old may the newest archive be on a month's first day; archives are made each week."""
MOST_FALSE = 20
"""Archives that are not genuine cost seconds each, as many as their maker likes; after so many no more are looked at."""


class Months(NamedTuple):
    """Archives that count, oldest first, and a sentence about each that counts as nothing."""

    counted: list[Shipped]
    ignored: list[str]


def fitting(shipped: Iterable[Shipped], today: date) -> Months:
    """Return those whose names fit their month; whether they are genuine, only `genuine` knows. What is cut off is left out."""
    found = Months([], [])
    for archive in shipped:
        if archive.committed and (why := misfit(archive, today)):
            found.ignored.append(f"{archive} {why}, so it counts as nothing")
        elif archive.committed:
            found.counted.append(archive)
    return found


def misfit(archive: Shipped, today: date) -> str | None:
    """Return why an archive cannot count for its month, or its day, None if it can."""
    day = folder.day_of(archive.name)
    if day > today or archive.period > str(today):
        return "is dated after today"
    if archive.tier == "monthly" and archive.month not in {f"{day:%Y-%m}", f"{day + BEFORE:%Y-%m}"}:
        return f"was made on {day}, neither in that month nor in the seven days before it"
    return None


def genuine(bucket: Bucket, archives: list[Shipped], most: int, passphrases: list[bytes], tick: Tick | None = None) -> Months:
    """Return an archive for each of the newest `most` months, or days, that have one which is what its signed manifest says.

    S3's own checksum of the object tells. Where S3 keeps none, the object is read, unless no `tick` is given to be told of it:
    then its size and what was written down beside it are believed.
    """
    found = Months([], [])
    for archive in reversed(archives):
        if found.counted and archive.period == found.counted[0].period:
            continue
        if len(found.counted) == most or len(found.ignored) == MOST_FALSE:
            break
        try:
            if not bucket.check(archive, passphrases) and tick:
                bucket.read(archive, passphrases, tick)
        except StoppedError:
            raise
        except BackupError as error:
            found.ignored.append(f"{archive} counts as nothing: {error}")
        else:
            found.counted.insert(0, archive)
    return found
