"""Rotation keeps the newest days and months, deletes only behind a verified newer one, and shows first what it would do."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import pytest

from settings import Settings, get_settings
from tasks.backups import folder, manifest, rotate
from tasks.backups.errors import BackupError
from tasks.backups.manifest import Manifest
from tasks.backups.ship import Bucket, Shipped
from tests.backups.conftest import FEW_ITERATIONS, PASSPHRASE, quiet


def put(into: Path, name: str, *, signed: bool = False) -> Path:
    """Put a backup of this name there; what is in it does not matter to rotation."""
    path = into / name
    path.write_bytes(name.encode())
    made = Manifest(
        kind=folder.kind_of(name) or "daily",
        name=name,
        created_at="2026-01-01T00:00:00Z",
        bytes=len(name),
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        plain_bytes=0,
        milliseconds=0,
    )
    (into / (name + manifest.SUFFIX)).write_bytes(manifest.compose(made, PASSPHRASE if signed else None, FEW_ITERATIONS))
    return path


def days(*numbers: int) -> list[str]:
    return [f"backup_chat_202601{number:02}.sql.zst" for number in numbers]


def left(into: Path) -> list[str]:
    return folder.names(into, "daily")


def doomed(entries: Iterable[rotate.Doomed]) -> list[str]:
    return [entry.name for entry in entries]


def test_the_newest_days_are_kept(into: Path) -> None:
    for name in days(1, 2, 3, 4, 5):
        put(into, name)
    assert doomed(rotate.plan_local(into, "daily", 3)) == days(1, 2)
    assert left(into) == days(1, 2, 3, 4, 5)
    assert doomed(rotate.prune_local(into, "daily", 3, [], quiet)) == days(1, 2)
    assert sorted(path.name for path in into.iterdir()) == sorted(
        [*days(3, 4, 5), *(name + ".manifest" for name in days(3, 4, 5))]
    )


def test_many_dumps_of_one_day_push_out_no_other_day(into: Path) -> None:
    for name in [*days(1, 2), *(f"backup_chat_20260102_1200{number:02}.sql.zst" for number in range(9))]:
        put(into, name)
    assert rotate.plan_local(into, "daily", 2) == []


def test_nothing_goes_while_the_newest_is_damaged(into: Path) -> None:
    for name in days(1, 2, 3):
        put(into, name)
    (into / days(3)[0]).write_bytes(b"X" * len(days(3)[0]))
    with pytest.raises(BackupError, match="nothing was rotated, since the newest backup is no good"):
        rotate.prune_local(into, "daily", 1, [], quiet)
    assert left(into) == days(1, 2, 3)


def test_one_that_is_cut_off_does_not_count_as_kept(into: Path) -> None:
    for name in days(1, 2, 3):
        put(into, name)
    (into / days(3)[0]).write_bytes(b"")
    assert doomed(rotate.plan_local(into, "daily", 1)) == days(1)
    assert rotate.plan_local(into, "daily", 2) == []


def test_the_last_good_one_stays_however_old(into: Path) -> None:
    put(into, *days(1))
    for name in days(2, 3):
        put(into, name).unlink()
    assert rotate.prune_local(into, "daily", 1, [], quiet) == []
    assert left(into) == days(1, 2, 3)


def test_a_rotation_that_was_cut_off_is_finished_by_the_next(into: Path) -> None:
    for name in days(1, 2, 3):
        put(into, name)
    (into / days(1)[0]).unlink()
    assert doomed(rotate.prune_local(into, "daily", 1, [], quiet)) == days(1, 2)
    assert left(into) == days(3)


def test_other_files_are_never_touched(into: Path) -> None:
    for name in days(1, 2):
        put(into, name)
    others = ["backup_chat_20250101.sql", "notes.txt", "x.manifest", "backup_chat_20250101.sql.zst"]
    for name in others:
        (into / name).write_bytes(b"mine")
    rotate.prune_local(into, "daily", 1, [], quiet)
    assert [name for name in others if not (into / name).exists()] == []


def shipped(*months: str, committed: bool = True) -> list[Shipped]:
    return [Shipped(month, f"backup_chat_week_{month.replace('-', '')}28.tar.enc", 1, committed) for month in months]


@pytest.mark.parametrize(
    ("keep", "going"), [(0, []), (1, ["2025-11", "2025-12"]), (2, ["2025-11"]), (3, [])], ids=["0 is all", "1", "2", "3"]
)
def test_the_newest_months_are_kept(keep: int, going: list[str]) -> None:
    plan = rotate.plan_months(shipped("2025-11", "2025-12", "2026-01"), keep)
    assert [entry.month for entry in plan] == going


def test_a_month_without_its_manifest_does_not_count_as_kept() -> None:
    archives = [*shipped("2025-11", "2025-12"), *shipped("2026-01", committed=False)]
    assert [entry.month for entry in rotate.plan_months(archives, 1)] == ["2025-11"]


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """The environment, with a part of the bucket for this test alone."""
    assert environment["AWS_ENDPOINT_URL_S3"]
    return get_settings().model_copy(update={"backup_s3_uri": f"s3://backups/{uuid4().hex}"})


def test_months_are_deleted_from_the_bucket_behind_a_good_one(into: Path, settings: Settings) -> None:
    bucket = Bucket(settings)
    for month in ("2025-11", "2025-12", "2026-01"):
        name = put(into, f"backup_chat_week_{month.replace('-', '')}28.tar.enc", signed=True).name
        bucket.ship(folder.load(into, name), month, quiet)
    with pytest.raises(BackupError, match="none of the 1 passphrases"):
        rotate.prune_months(bucket, 1, [b"another passphrase"])
    assert len(bucket.shipped()) == 3
    assert len(rotate.prune_months(bucket, 1, [PASSPHRASE])) == 2
    assert [(archive.month, archive.committed) for archive in bucket.shipped()] == [("2026-01", True)]
