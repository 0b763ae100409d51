"""What BACKUP_S3_SHIP has shipped at once: sealed, in order, only if genuine, rotated there, and all that a restore needs."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from sqlalchemy import Engine, text

from db.models import CHAT_TABLES
from devstack.stack import Stack
from tasks import shutdown
from tasks.backups import dump, folder, manifest, rotate
from tasks.backups.errors import BackupError, StoppedError
from tasks.backups.passphrases import MOST_ITERATIONS
from tasks.backups.run import Backups
from tasks.backups.seal import PART_BYTES
from tasks.backups.ship import MOST_VERSIONS, Bucket
from tests.backups.conftest import PASSPHRASE, checksums, quiet
from tests.backups.test_rotate import put
from tests.backups.test_ship import wire


@pytest.fixture
def shipping(backups: Backups) -> Backups:
    """Backups that ship each dump as soon as it is made."""
    return replace(backups, settings=backups.settings.model_copy(update={"backup_s3_ship": "daily"}))


def shipped(backups: Backups) -> list[str]:
    return [str(entry) for entry in Bucket(backups.settings).shipped() if entry.committed]


def older(backups: Backups, days: int, tier: str = "daily", content: bytes = b"") -> str:
    """Put a dump, or an archive, of so many days ago beside today's; return under which name it is shipped."""
    day = dump.today(backups.engine) - timedelta(days=days)
    name = f"backup_chat_{day:%Y%m%d}.sql.zst" if tier == "daily" else f"backup_chat_week_{day:%Y%m%d}.tar.enc"
    put(backups.folder, name, signed=True, content=content)
    return f"daily/backup_chat_day_{day:%Y%m%d}.tar.enc" if tier == "daily" else f"weekly/{name}"


def test_a_dump_is_sealed_and_shipped_as_soon_as_it_is_made(shipping: Backups) -> None:
    name = shipping.daily(quiet).artefact
    day = name.removeprefix("backup_chat_").removesuffix(".sql.zst")
    assert shipped(shipping) == [f"daily/backup_chat_day_{day}.tar.enc"]
    assert sorted(path.name for path in shipping.folder.iterdir()) == [".lock", name, name + manifest.SUFFIX]
    week = shipping.weekly(quiet).artefact
    assert shipped(shipping)[1:] == [f"weekly/{week}"]
    assert shipping.daily(quiet).artefact == shipping.weekly(quiet).artefact == ""


def test_what_could_not_be_shipped_is_shipped_in_order_once_the_bucket_is_back(
    shipping: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = older(shipping, 4)
    shipping.ship("daily", quiet)
    names = [first, *(older(shipping, days) for days in (3, 2, 1))]
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        away.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(BackupError, match=r"^dumped backup_chat_.*\.zst, which is whole, but S3 .*failed while listing it"):
            replace(shipping).daily(quiet)
    made = folder.names(shipping.folder, "daily")[-1]
    assert folder.load(shipping.folder, made).signed.manifest.rows  # the dump is none the worse for it
    assert shipped(shipping) == names[:1]
    shipping.daily(quiet)
    assert shipped(shipping)[:4] == names
    assert len(shipped(shipping)) == 5


def test_the_first_time_the_newest_alone_is_shipped(shipping: Backups) -> None:
    names = [older(shipping, days) for days in (3, 2, 1)]
    shipping.ship("daily", quiet)
    assert shipped(shipping) == names[-1:]


def test_the_dumps_of_hours_before_one_that_a_wrong_clock_made_are_shipped(shipping: Backups) -> None:
    day = dump.today(shipping.engine) - timedelta(days=1)
    for hours in ((10,), (10, 22), (10, 22, 12), (10, 22, 12, 13)):  # the clock was ten hours ahead once
        put(shipping.folder, f"backup_chat_{day:%Y%m%d}_{hours[-1]}0000.sql.zst", signed=True)
        shipping.ship("daily", quiet)
        assert shipped(shipping) == [f"daily/backup_chat_day_{day:%Y%m%d}_{hour}0000.tar.enc" for hour in sorted(hours)]


def test_the_first_dump_after_a_host_was_lost_is_shipped_beside_that_of_the_same_day(shipping: Backups, other: Engine) -> None:
    shipping.daily(quiet)
    first = shipped(shipping)
    for path in shipping.folder.iterdir():
        path.unlink()
    with shipping.engine.begin() as connection:
        connection.execute(text("DELETE FROM worker_backup_runs"))
        connection.execute(text("UPDATE messages SET message_text = 'since then'"))
    made = shipping.daily(quiet)
    assert made.artefact.count("_") == 2, "it has the name of the first"
    beside = shipped(shipping)
    assert beside[0] == first[0]
    assert re.fullmatch(rf"{first[0].removesuffix('.tar.enc')}_\d{{6}}\.tar\.enc", beside[1])
    shipping.ship("daily", quiet)
    assert shipped(shipping) == beside, "it is shipped once"
    shipping.restore(shipping.find(beside[1]), other, CHAT_TABLES, quiet)
    assert checksums(other)["messages"] == checksums(shipping.engine)["messages"]


def test_an_archive_of_a_week_that_another_host_has_shipped_under_its_name_is_said_to_stay(shipping: Backups) -> None:
    shipping.daily(quiet)
    shipping.weekly(quiet)
    there = shipped(shipping)
    for path in shipping.folder.glob("backup_chat_week_*"):
        path.unlink()
    with shipping.engine.begin() as connection:
        connection.execute(text("DELETE FROM worker_backup_runs"))
    run = shipping.weekly(quiet, force=True)
    assert f"weekly/{run.artefact} is another than this host's, which is not shipped" in run.ignored
    assert shipped(shipping) == there


def test_what_is_not_genuine_in_the_bucket_keeps_no_dump_from_being_shipped(shipping: Backups, stack: Stack) -> None:
    name = older(shipping, 1)
    shipping.ship("daily", quiet)
    day = dump.today(shipping.engine)
    prefix = str(shipping.settings.backup_s3_uri).removeprefix("s3://backups/")
    for suffix in ("", manifest.SUFFIX):
        key = f"{prefix}/daily/backup_chat_day_{day:%Y%m%d}_999999.tar.enc{suffix}"
        boto3.resource("s3", endpoint_url=stack.s3.url).Bucket("backups").put_object(Key=key, Body=b"junk")
    run = shipping.daily(quiet)
    assert "counts as nothing" in " ".join(run.ignored)
    assert [entry for entry in shipped(shipping) if "999999" not in entry] == [
        name,
        f"daily/backup_chat_day_{day:%Y%m%d}.tar.enc",
    ]


@pytest.mark.parametrize("suffix", ["", manifest.SUFFIX], ids=["archive", "manifest"])
@pytest.mark.parametrize("tier", ["daily", "weekly"])
def test_an_object_under_a_name_to_come_keeps_only_that_dump_from_being_shipped_which_is_not_even_read(
    shipping: Backups, stack: Stack, tier: str, suffix: str
) -> None:
    first = older(shipping, 4, tier)
    shipping.ship(tier, quiet)
    taken, *others = [older(shipping, days, tier) for days in (3, 2, 1)]
    unread = folder.names(shipping.folder, "daily" if tier == "daily" else "weekly")[1]
    (shipping.folder / unread).write_bytes(bytes(len(unread)))
    prefix = str(shipping.settings.backup_s3_uri).removeprefix("s3://backups/")
    boto3.resource("s3", endpoint_url=stack.s3.url).Bucket("backups").put_object(Key=f"{prefix}/{taken}{suffix}", Body=b"junk")
    with pytest.raises(BackupError, match=f"{taken}{suffix} is another "):
        shipping.ship(tier, quiet)
    assert [entry for entry in shipped(shipping) if entry != taken] == [first, *others]
    assert folder.names(shipping.folder, "day") == []


def test_any_number_of_false_archives_keeps_no_dump_from_being_shipped(shipping: Backups, stack: Stack) -> None:
    first = older(shipping, 4)
    shipping.ship("daily", quiet)
    owed = [older(shipping, days) for days in (3, 2, 1)]
    prefix = str(shipping.settings.backup_s3_uri).removeprefix("s3://backups/")
    bucket, day = boto3.resource("s3", endpoint_url=stack.s3.url).Bucket("backups"), dump.today(shipping.engine)
    for number in range(rotate.MOST_FALSE + 1):
        for suffix in ("", manifest.SUFFIX):
            key = f"{prefix}/daily/backup_chat_day_{day:%Y%m%d}_2359{number:02}.tar.enc{suffix}"
            bucket.put_object(Key=key, Body=b"junk")
    shipping.ship("daily", quiet)
    assert [entry for entry in shipped(shipping) if "_2359" not in entry] == [first, *owed]


def test_a_genuine_archive_in_another_folder_than_its_own_counts_as_nothing(shipping: Backups, stack: Stack) -> None:
    """Who may put objects copies an archive of a week among those of the days, whose names come before it."""
    name = older(shipping, 1)
    shipping.ship("daily", quiet)
    shipping.daily(quiet, force=True)
    week = shipping.weekly(quiet).artefact
    prefix = str(shipping.settings.backup_s3_uri).removeprefix("s3://backups/")
    for suffix in ("", manifest.SUFFIX):
        content = (shipping.folder / (week + suffix)).read_bytes()
        for other in ("daily", f"{dump.today(shipping.engine):%Y-%m}"):
            copied = week if other == "daily" else shipped(shipping)[1].partition("/")[2]
            bucket = boto3.resource("s3", endpoint_url=stack.s3.url).Bucket("backups")
            bucket.put_object(Key=f"{prefix}/{other}/{copied}{suffix}", Body=content)
    assert shipped(shipping)[0] == name
    assert [entry.partition("/")[0] for entry in shipped(shipping)] == ["daily", "daily", "weekly"]
    assert shipping.monthly(quiet).artefact == week


def test_the_bucket_is_rotated_by_the_same_days(shipping: Backups) -> None:
    names = []
    for days in range(9, 0, -1):
        names.append(older(shipping, days))
        shipping.ship("daily", quiet)
    kept = replace(shipping, settings=shipping.settings.model_copy(update={"backup_keep_daily": 7}))
    kept.daily(quiet)
    assert shipped(kept)[:-1] == names[3:]


def test_of_many_dumps_a_day_the_last_stays_once_two_days_are_over(backups: Backups) -> None:
    hourly = replace(backups, settings=backups.settings.model_copy(update={"backup_every": "1h"}))
    for days in (3, 2, 1):
        older(hourly, days)
        name = folder.names(hourly.folder, "daily")[-1]
        put(hourly.folder, name.replace(".sql", "_130000.sql"), signed=True)
    hourly.daily(quiet)
    left = [name.partition(".")[0][-7:] for name in folder.names(hourly.folder, "daily")]
    assert [end == "_130000" for end in left] == [True, True, False, True, False]


def test_a_restore_from_the_bucket_alone_brings_back_the_newest_dump(shipping: Backups, other: Engine, into: Path) -> None:
    """The host is lost, and with it the folder; another one has the passphrase and the bucket's address."""
    shipping.daily(quiet)
    before = checksums(shipping.engine)
    with shipping.engine.begin() as connection:
        connection.execute(text("DELETE FROM message_reads"))
    shutil.rmtree(into)
    into.mkdir(mode=0o700)
    newest = shipped(shipping)[-1]
    shipping.restore(shipping.find(newest), other, CHAT_TABLES, quiet, push=True)
    assert checksums(other) == before
    assert shipping.drill(quiet, tier="monthly").rows


@pytest.fixture
def locked(backups: Backups, stack: Stack) -> Backups:
    """Backups in a bucket that was made with object lock, which moto enforces."""
    name = f"locked-{uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=stack.s3.url).create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    own = {"backup_s3_uri": f"s3://{name}/chat", "backup_s3_lock_days": 30, "backup_s3_ship": "daily"}
    return replace(backups, settings=backups.settings.model_copy(update=own))


def thief(backups: Backups, stack: Stack) -> Any:
    """The bucket in the hands of one who has stolen its credentials."""
    name = str(backups.settings.backup_s3_uri).removeprefix("s3://").partition("/")[0]
    return boto3.resource("s3", endpoint_url=stack.s3.url).Bucket(name)


def test_a_bucket_whose_credentials_were_stolen_keeps_its_archives(
    locked: Backups, other: Engine, stack: Stack, into: Path
) -> None:
    older(locked, 1)
    locked.ship("daily", quiet)
    locked.daily(quiet)
    before, name = shipped(locked)
    bucket = thief(locked, stack)
    for version in [*bucket.object_versions.all()]:
        with pytest.raises(ClientError, match="AccessDenied"):
            version.delete()
    for entry in [*bucket.objects.all()]:
        entry.put(Body=b"pay us")
        entry.delete()
    assert not [*bucket.objects.all()]
    assert shipped(locked) == [before, name]
    shutil.rmtree(into)
    into.mkdir(mode=0o700)
    locked.restore(locked.find(name), other, CHAT_TABLES, quiet, push=True)
    assert checksums(other) == checksums(locked.engine)
    assert locked.drill(quiet, tier="monthly").rows


def test_a_bucket_that_cannot_lock_is_said_before_anything_is_put_there(locked: Backups, stack: Stack) -> None:
    name = f"unlocked-{uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=stack.s3.url).create_bucket(Bucket=name)
    unlocked = replace(locked, settings=locked.settings.model_copy(update={"backup_s3_uri": f"s3://{name}/chat"}))
    for attempt in (lambda: Bucket(unlocked.settings).try_upload(), lambda: unlocked.daily(quiet)):
        with pytest.raises(BackupError, match="made with object lock, or unset BACKUP_S3_LOCK_DAYS"):
            attempt()
    assert not [*thief(unlocked, stack).object_versions.all()]
    Bucket(locked.settings).try_upload()


def test_what_lay_under_a_name_before_keeps_no_archive_from_being_shipped_and_restored(
    locked: Backups, other: Engine, stack: Stack, into: Path
) -> None:
    """Names can be foreseen; a thief puts something there first, and hides one of them behind a delete marker."""
    bucket, day = thief(locked, stack), dump.today(locked.engine)
    key = f"chat/daily/backup_chat_day_{day:%Y%m%d}.tar.enc"
    for suffix in ("", manifest.SUFFIX):
        bucket.put_object(Key=key + suffix, Body=b"put early")
    bucket.Object(key + manifest.SUFFIX).delete()
    assert "is damaged" in " ".join(locked.daily(quiet).ignored)  # what there is before
    name = shipped(locked)[-1]
    shutil.rmtree(into)
    into.mkdir(mode=0o700)
    locked.restore(locked.find(name), other, CHAT_TABLES, quiet, push=True)
    assert checksums(other) == checksums(locked.engine)
    assert locked.drill(quiet, tier="monthly").rows


def test_the_lock_is_on_what_was_shipped_whatever_is_put_over_it_meanwhile(
    locked: Backups, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = boto3.Session()
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    bucket, ours = thief(locked, stack), dict[str, str]()

    def put_over(params: dict[str, Any], **_: Any) -> None:
        for version in bucket.object_versions.all():
            if version.object_key not in ours:
                ours[version.object_key] = version.id
                bucket.put_object(Key=version.object_key, Body=b"junk")

    session.events.register("before-call.s3.PutObjectRetention", put_over)
    locked.daily(quiet)
    assert len(ours) == 2
    for key, version in ours.items():
        with pytest.raises(ClientError, match="AccessDenied"):
            bucket.Object(key).Version(version).delete()


def test_versions_over_versions_of_false_manifests_cost_the_keys_of_fifty(
    locked: Backups, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    older(locked, 4)
    locked.ship("daily", quiet)
    bucket, day, derived = thief(locked, stack), dump.today(locked.engine), list[int]()
    signed = (locked.folder / (folder.names(locked.folder, "daily")[-1] + manifest.SUFFIX)).read_bytes()
    for number in range(3):
        name = f"backup_chat_day_{day:%Y%m%d}_23595{number}.tar.enc"
        line, _, signature = signed.partition(b"\n")
        bucket.put_object(Key=f"chat/daily/{name}", Body=b"x")
        for iterations in (MOST_ITERATIONS, MOST_ITERATIONS + 1):
            false = json.loads(line) | {"name": name, "kind": "day"}, json.loads(signature) | {"iterations": iterations}
            for _ in range(20):
                body = "".join(f"{json.dumps(each)}\n" for each in false)
                bucket.put_object(Key=f"chat/daily/{name}{manifest.SUFFIX}", Body=body)
    derive = hashlib.pbkdf2_hmac

    def counted(kind: str, password: bytes, salt: bytes, iterations: int, length: int | None = None) -> bytes:
        derived.append(iterations)
        return derive(kind, password, salt, 1, length)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counted)
    run = locked.ship("daily", quiet)
    assert max(derived) == MOST_ITERATIONS
    assert derived.count(MOST_ITERATIONS) <= MOST_VERSIONS
    assert run.ignored


def test_an_archive_under_any_number_of_versions_is_found_without_a_look_at_each_and_a_stop_ends_that(
    locked: Backups, stack: Stack
) -> None:
    older(locked, 1)
    locked.ship("daily", quiet)
    name, bucket = shipped(locked)[0], Bucket(locked.settings)
    for _ in range(100):
        thief(locked, stack).put_object(Key=f"chat/{name}", Body=b"pay us")
    size = next(each.bytes for each in bucket.shipped())
    for _ in range(10):
        thief(locked, stack).put_object(Key=f"chat/{name}", Body=b"x" * size)
    bucket, asked = Bucket(locked.settings), list[object]()
    bucket._s3.meta.events.register("before-call.s3.HeadObject", lambda **_: asked.append(None))
    (archive,) = bucket.shipped()
    bucket.check(archive, [PASSPHRASE])
    assert len(asked) == 2 * 11
    shutdown.request_stop()
    try:
        with pytest.raises(StoppedError, match="the worker is stopping while looking for chat/daily"):
            bucket.check(archive, [PASSPHRASE])
    finally:
        shutdown.forget()


def test_rotation_leaves_what_is_locked_and_deletes_it_for_good_once_it_may(locked: Backups, stack: Stack) -> None:
    names = []
    for days in range(9, 1, -1):
        names.append(older(locked, days))
        locked.ship("daily", quiet)
    kept = replace(locked, settings=locked.settings.model_copy(update={"backup_keep_daily": 7}))
    plan = kept.prune(quiet)["S3 daily"]
    assert (plan.backups, [sentence.partition(" ")[0] for sentence in plan.ignored]) == ([], names[:1])
    assert "stays, for S3 denies its deletion" in plan.ignored[0]
    assert shipped(kept) == names
    for version in thief(kept, stack).object_versions.all():
        over = datetime.now(UTC) - timedelta(days=1)  # as time has it
        version.meta.client.put_object_retention(
            Bucket=version.bucket_name,
            Key=version.object_key,
            VersionId=version.id,
            Retention={"Mode": "COMPLIANCE", "RetainUntilDate": over},
        )
    assert [str(entry) for entry in kept.prune(quiet)["S3 daily"].backups] == names[:1]
    assert not [version for version in thief(kept, stack).object_versions.all() if names[0] in version.object_key]


def test_a_line_that_broke_once_leaves_no_dump_behind_and_sends_none_twice(
    shipping: Backups, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = older(shipping, 5)
    shipping.ship("daily", quiet)
    large, last = older(shipping, 3, content=os.urandom(2 * PART_BYTES)), older(shipping, 2)
    with wire(stack, PART_BYTES * 3 // 2, monkeypatch) as cut, pytest.raises(BackupError, match="goes on from there"):
        shipping.ship("daily", quiet)
    assert shipped(shipping) == [first]
    with wire(stack, 10**9, monkeypatch) as whole:
        shipping.ship("daily", quiet)
    assert shipped(shipping) == [first, large, last]
    assert cut.sent > PART_BYTES > whole.sent - PART_BYTES
