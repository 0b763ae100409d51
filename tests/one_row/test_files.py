"""What reads, prunes and ships files of a folder: an odd one keeps no other from it."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tasks.backups import folder, manifest, rotate
from tasks.backups.errors import BackupError
from tasks.backups.run import Backups
from tasks.retention.policies import POLICIES
from tasks.retention.run import RunFailedError, run_policy
from tests.backups.conftest import awkward, backups, into, passphrase_file, quiet
from tests.backups.test_off_site import older, shipped, shipping
from tests.backups.test_rotate import put
from tests.retention.test_files import folders, written

__all__ = ["awkward", "backups", "folders", "into", "passphrase_file", "shipping"]

TODAY = date(2026, 1, 31)


def day(number: int) -> str:
    return f"backup_chat_202601{number:02}.sql.zst"


def another(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in a file's place."""
    path.unlink()
    make(path)


def full_folder(path: Path) -> None:
    (path / "x").mkdir(parents=True)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


# What lies in BACKUP_DIR beside, or in place of, the dump of the first day.
ODD: dict[str, Callable[[Path], object]] = {
    "a folder as a manifest": lambda into: another(into / (day(1) + manifest.SUFFIX), full_folder),
    "a folder as a dump": lambda into: another(into / day(1), full_folder),
    "a loop as a manifest": lambda into: another(into / (day(1) + manifest.SUFFIX), loop),
    "a loop as a dump": lambda into: another(into / day(1), loop),
    "an unfinished dump in another place": lambda into: (into / "x.partial").symlink_to(into.parent),
    "a name that is no text": lambda into: (into / os.fsdecode(b"backup_chat_20260101\xff.sql.zst.manifest")).touch(),
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("keep", [1, 9])
def test_the_other_dumps_are_found_and_pruned(into: Path, what: str, keep: int) -> None:
    for number in range(1, 5):
        put(into, day(number))
    ODD[what](into)
    for _ in range(2):
        newest = folder.newest(into, "daily", TODAY)
        assert newest is not None
        assert newest.name == day(4)
        with suppress(OSError), folder.locked(into):  # which tells of a folder that cannot be unlinked
            rotate.rotate_local(into, "daily", keep, TODAY, [], quiet, delete=True)
        left = [number for number in range(2, 5) if (into / day(number)).exists()]
        assert left == ([2, 3, 4] if keep == 9 else [4])


def test_a_dump_that_was_changed_keeps_no_other_from_being_shipped(shipping: Backups) -> None:
    first = older(shipping, 5)
    shipping.ship("daily", quiet)
    changed, good = older(shipping, 3), older(shipping, 2)
    path = shipping.folder / changed.removeprefix("daily/").replace("day_", "").replace(".tar.enc", ".sql.zst")
    path.write_bytes(b"X" * path.stat().st_size)
    with pytest.raises(BackupError, match="was changed after it was made"):
        shipping.ship("daily", quiet)
    assert shipped(shipping) == [first, good]


# Files that retention deletes by their age.
ODD_FILES = {
    "a name that is no text": (b"\xff.infected", 181 * 86400),
    "a time before all others": (b"0.infected", 2**45),
    "a time behind all others": (b"0.infected", -(2**45)),
}


@pytest.mark.parametrize("what", ODD_FILES)
def test_the_other_files_go_by_their_age(chat: Engine, folders: Path, what: str) -> None:
    name, age = ODD_FILES[what]
    place = folders / "quarantine"
    for number in range(5):
        written(place / f"{number}a.infected", 181)
    path = written(place / os.fsdecode(name), 0)
    with suppress(OSError, OverflowError):  # not each file system keeps such a time
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    with suppress(RunFailedError):
        run_policy(chat, POLICIES["quarantine"], by="test")
    assert [each.name for each in place.glob("?a.infected")] == []
