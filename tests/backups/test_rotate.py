"""Rotation keeps the newest days and months, deletes only behind a verified newer one, and shows first what it would do."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest

from settings import Settings, get_settings
from tasks.backups import folder, manifest, rotate, seal
from tasks.backups.errors import BackupError
from tasks.backups.manifest import Manifest
from tasks.backups.ship import Bucket, Shipped
from tests.backups.conftest import FEW_ITERATIONS, PASSPHRASE, quiet

TODAY = date(2026, 1, 31)


def put(into: Path, name: str, *, signed: bool = False, made_at: str = "2026-01-01T00:00:00Z", content: bytes = b"") -> Path:
    """Put a backup of this name there; what is in it does not matter to rotation."""
    path, content = into / name, content or name.encode()
    path.write_bytes(content)
    made = Manifest(
        kind=folder.kind_of(name) or "daily",
        name=name,
        created_at=made_at,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parts_sha256=seal.digests(content[at : at + seal.PART_BYTES] for at in range(0, len(content), seal.PART_BYTES))[1],
        plain_bytes=0,
        milliseconds=0,
    )
    (into / (name + manifest.SUFFIX)).write_bytes(manifest.compose(made, PASSPHRASE if signed else None, FEW_ITERATIONS))
    return path


def days(*numbers: int) -> list[str]:
    return [f"backup_chat_202601{number:02}.sql.zst" for number in numbers]


def left(into: Path) -> list[str]:
    return folder.names(into, "daily")


def plan(into: Path, keep: int) -> list[str]:
    return [entry.name for entry in rotate.rotate_local(into, "daily", keep, TODAY, [], quiet, delete=False).backups]


def prune(into: Path, keep: int) -> list[str]:
    return [entry.name for entry in rotate.rotate_local(into, "daily", keep, TODAY, [], quiet, delete=True).backups]


def test_the_newest_days_are_kept(into: Path) -> None:
    for name in days(1, 2, 3, 4, 5):
        put(into, name)
    assert plan(into, 3) == days(1, 2)
    assert left(into) == days(1, 2, 3, 4, 5)
    assert prune(into, 3) == days(1, 2)
    assert sorted(path.name for path in into.iterdir()) == sorted(
        [*days(3, 4, 5), *(name + ".manifest" for name in days(3, 4, 5))]
    )


def test_many_dumps_of_one_day_push_out_no_other_day(into: Path) -> None:
    for name in [*days(1, 2), *(f"backup_chat_20260102_1200{number:02}.sql.zst" for number in range(9))]:
        put(into, name)
    assert plan(into, 2) == []


def test_nothing_goes_while_the_newest_is_damaged(into: Path) -> None:
    for name in days(1, 2, 3):
        put(into, name)
    (into / days(3)[0]).write_bytes(b"X" * len(days(3)[0]))
    with pytest.raises(BackupError, match="nothing was rotated, since the newest backup is no good"):
        prune(into, 1)
    assert left(into) == days(1, 2, 3)


def test_one_that_is_cut_off_does_not_count_as_kept(into: Path) -> None:
    for name in days(1, 2, 3):
        put(into, name)
    (into / days(3)[0]).write_bytes(b"")
    assert plan(into, 1) == days(1)
    assert plan(into, 2) == []


def test_the_last_good_one_stays_however_old(into: Path) -> None:
    put(into, *days(1))
    for name in days(2, 3):
        put(into, name).unlink()
    assert prune(into, 1) == []
    assert left(into) == days(1, 2, 3)


def test_a_rotation_that_was_cut_off_is_finished_by_the_next(into: Path) -> None:
    for name in days(1, 2, 3):
        put(into, name)
    (into / days(1)[0]).unlink()
    assert prune(into, 1) == days(1, 2)
    assert left(into) == days(3)


def test_other_files_are_never_touched(into: Path) -> None:
    for name in days(1, 2):
        put(into, name)
    others = ["backup_chat_20250101.sql", "notes.txt", "x.manifest", "backup_chat_20250101.sql.zst"]
    for name in others:
        (into / name).write_bytes(b"mine")
    prune(into, 1)
    assert [name for name in others if not (into / name).exists()] == []


def test_what_is_dated_after_today_counts_as_nothing_is_named_and_stays(into: Path) -> None:
    wrong = [f"backup_chat_2036010{number}.sql.zst" for number in range(1, 5)]
    for name in [*days(1, 2, 3), *wrong, "backup_chat_20261399.sql.zst"]:
        (put if folder.kind_of(name) else put_as_is)(into, name)
    found = rotate.rotate_local(into, "daily", 2, TODAY, [], quiet, delete=True)
    assert [entry.name for entry in found.backups] == days(1)
    assert [sentence.partition(" ")[0] for sentence in found.ignored] == wrong
    assert left(into) == [*days(2, 3), *wrong]


def put_as_is(into: Path, name: str) -> None:
    for suffix in ("", manifest.SUFFIX):
        (into / (name + suffix)).write_bytes(b"")


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """The environment, with a part of the bucket for this test alone."""
    assert environment["AWS_ENDPOINT_URL_S3"]
    return get_settings().model_copy(update={"backup_s3_uri": f"s3://backups/{uuid4().hex}"})


MONTHS = ("2025-10", "2025-11", "2025-12", "2026-01")


def name_in(month: str) -> str:
    return f"backup_chat_week_{month.replace('-', '')}28.tar.enc"


@pytest.fixture
def bucket(into: Path, settings: Settings) -> Bucket:
    """A bucket with a genuine archive in each of MONTHS."""
    bucket = Bucket(settings)
    for month in MONTHS:
        name = put(into, name_in(month), signed=True).name
        bucket.ship(folder.load(into, name), month, quiet)
    return bucket


class Attacker:
    """Someone who may put objects into the bucket, but knows no passphrase."""

    def __init__(self, bucket: Bucket) -> None:
        place, _, self._prefix = bucket.uri.removeprefix("s3://").partition("/")
        self._bucket = boto3.resource("s3").Bucket(place)

    def put(self, key: str, body: bytes, **options: Any) -> None:
        self._bucket.put_object(Key=f"{self._prefix}/{key}", Body=body, **options)

    def copy(self, month: str, to: str, name: str | None = None) -> None:
        for suffix in ("", manifest.SUFFIX):
            source = self._bucket.Object(f"{self._prefix}/{month}/{name_in(month)}{suffix}").get()
            self.put(f"{to}/{name or name_in(month)}{suffix}", source["Body"].read(), Metadata=source["Metadata"])


@pytest.fixture
def attacker(bucket: Bucket) -> Attacker:
    return Attacker(bucket)


def pruned(bucket: Bucket, keep: int, passphrase: bytes = PASSPHRASE) -> tuple[list[str], list[str]]:
    """Rotate, look that all was done that was planned; return the months that went and what was ignored, by its key."""
    plan = rotate.rotate_shipped(bucket, "monthly", keep, TODAY, [passphrase], quiet, delete=False)
    assert rotate.rotate_shipped(bucket, "monthly", keep, TODAY, [passphrase], quiet, delete=True) == plan
    assert not {str(entry) for entry in plan.backups} & {str(entry) for entry in bucket.shipped()}
    return [entry.month for entry in plan.backups], [sentence.partition(" ")[0] for sentence in plan.ignored]


@pytest.mark.parametrize(("keep", "going"), [(0, 0), (1, 3), (2, 2), (4, 0), (9, 0)], ids=["0 is all", "1", "2", "4", "9"])
def test_the_newest_months_are_kept(bucket: Bucket, keep: int, going: int) -> None:
    assert pruned(bucket, keep) == ([*MONTHS[:going]], [])
    assert [archive.month for archive in bucket.shipped()] == [*MONTHS[going:]]


def test_a_month_without_its_manifest_does_not_count_as_kept(bucket: Bucket, attacker: Attacker) -> None:
    attacker.put(f"2026-01/{name_in('2026-01').replace('28', '29')}", b"cut off")
    attacker.put("2025-12/backup_chat_week_20251299.tar.enc", b"no day")
    assert pruned(bucket, 3) == (["2025-10"], [])


def test_a_month_without_a_passphrase_for_it_counts_as_nothing_and_nothing_goes(bucket: Bucket) -> None:
    assert pruned(bucket, 1, b"another passphrase") == ([], [f"{month}/{name_in(month)}" for month in reversed(MONTHS)])
    assert len(bucket.shipped()) == 4


@pytest.mark.parametrize("renamed", [False, True], ids=["as it is", "under a name of that month"])
@pytest.mark.parametrize("year", ["2024", "2098"])
def test_copies_of_a_genuine_archive_in_other_months_push_no_month_out(
    bucket: Bucket, attacker: Attacker, year: str, renamed: bool
) -> None:
    months = [f"{year}-{number:02}" for number in range(1, 13)]
    for month in months:
        attacker.copy("2026-01", month, name_in(month) if renamed else None)
    gone, ignored = pruned(bucket, 3)
    # A copy under another name in a month that is past its keep goes with it; it has pushed nothing out.
    assert gone == [*(months if renamed and year == "2024" else []), "2025-10"]
    assert len(ignored) == (0 if renamed and year == "2024" else 12)
    assert {archive.month for archive in bucket.shipped()} >= {*MONTHS[1:]}


def test_copies_under_other_names_in_months_that_have_none_push_no_month_out(bucket: Bucket, attacker: Attacker) -> None:
    for day in range(1, 5):
        attacker.copy("2025-10", "2026-01", f"backup_chat_week_2026013{day % 2}_00000{day}.tar.enc")
    gone, ignored = pruned(bucket, 3)
    assert (gone, len(ignored)) == (["2025-10"], 4)


def test_any_number_of_false_archives_costs_the_keys_of_twenty_and_lets_nothing_go(bucket: Bucket, attacker: Attacker) -> None:
    for number in range(rotate.MOST_FALSE + 5):
        attacker.copy("2025-10", "2026-01", f"backup_chat_week_20260131_0000{number:02}.tar.enc")
    gone, ignored = pruned(bucket, 1)
    assert (gone, len(ignored)) == ([], rotate.MOST_FALSE)


@pytest.mark.parametrize("options", [{}, {"ChecksumAlgorithm": "SHA256"}], ids=["no checksum is kept", "S3 keeps a checksum"])
def test_other_bytes_of_the_same_length_under_a_genuine_manifest_are_not_kept(
    bucket: Bucket, attacker: Attacker, options: dict[str, str]
) -> None:
    name = name_in("2025-12")
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    attacker.put(f"2025-12/{name}", b"X" * len(name), Metadata={"sha256": sha256}, **options)
    assert pruned(bucket, 3) == ([], [f"2025-12/{name}"])
    assert pruned(bucket, 2) == (["2025-10"], [f"2025-12/{name}"])


def test_an_archive_of_the_seven_days_before_its_month_counts(bucket: Bucket, into: Path) -> None:
    for day in (24, 25):
        path = put(into, f"backup_chat_week_202511{day}.tar.enc", signed=True)
        bucket.ship(folder.load(into, path.name), "2025-12", quiet)
    for day, fits in ((23, False), (24, True)):
        archive = Shipped("2025-12", f"backup_chat_week_202511{day}.tar.enc", 1, committed=True)
        assert (rotate.misfit(archive, TODAY) is None) == fits
    assert pruned(bucket, 3) == (["2025-10"], [])
