"""Infected content is put away, and comes back only by a person's decision and through another scan."""

import hashlib
import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from devstack.s3 import BUCKET
from settings import ConfigurationError, get_settings
from tasks.attachments.quarantine import Quarantine
from tasks.attachments.scannable import EICAR
from tasks.attachments.settlement import PENDING, Attachment
from tasks.attachments.storage import open_storage
from tasks.attachments.storage.base import Content, MissingError, Storage, StorageUnavailableError
from tasks.attachments.storage.files import FileStorage
from workers.cli import cli

from .conftest import Uploads, reread
from .samples import PNG, zipped

SHA256 = hashlib.sha256(EICAR).hexdigest()


@pytest.mark.parametrize("call", ["scan", "sweep"])
def test_infected_content_is_moved_into_quarantine(uploads: Uploads, vault: Path, call: str) -> None:
    attachment, clean = uploads.add(EICAR), uploads.add(PNG)

    if call == "scan":
        uploads.scan(attachment)
        uploads.scan(clean)
    uploads.sweep()

    [kept] = vault.iterdir()
    assert kept.name == f"{SHA256}.infected"
    assert kept.read_bytes() == EICAR
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not uploads.path(attachment).exists()
    assert uploads.path(clean).exists()
    assert uploads.record(attachment).quarantine == f"file://{kept}"
    assert uploads.events(attachment) == ["infected", "quarantined"]
    assert uploads.flags(attachment) == (1, 0)


def test_infected_content_is_copied_if_the_setting_says_so(
    uploads: Uploads, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTACHMENTS_QUARANTINE", "copy")
    reread()
    attachment = uploads.add(EICAR)

    uploads.scan(attachment)
    uploads.sweep()

    assert uploads.path(attachment).read_bytes() == EICAR
    assert len(list(vault.iterdir())) == 1


def test_a_worker_killed_between_moving_and_settling_leaves_nothing_undone(uploads: Uploads, vault: Path) -> None:
    attachment = uploads.add(EICAR)
    uploads.scan(attachment)
    uploads.sweep()
    uploads.execute("UPDATE worker_scans SET quarantine = 'pending', lease = 'dead', due_at = NOW(3)")

    uploads.sweep()

    assert uploads.record(attachment).quarantine.startswith(f"file://{vault}/")
    assert uploads.flags(attachment) == (1, 0)


def test_another_scan_of_what_was_moved_away_leaves_it_infected(uploads: Uploads, vault: Path) -> None:
    attachment = uploads.add(EICAR)
    for _ in range(2):
        uploads.scan(attachment)
        uploads.sweep()
    assert list(vault.iterdir())
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 0, is_safe = 1")

    uploads.sweep()

    record = uploads.record(attachment)
    assert (record.verdict, record.due_at, uploads.flags(attachment)) == ("infected", None, (1, 0))
    assert record.quarantine.startswith("file://")


@pytest.mark.parametrize("quarantine", ["moved", "pending"])
def test_a_row_that_comes_to_name_a_file_on_its_way_is_told_of_no_more_often_than_others(
    uploads: Uploads, vault: Path, quarantine: str
) -> None:
    attachment = uploads.add(EICAR)
    uploads.sweep()
    assert list(vault.iterdir())
    if quarantine == PENDING:
        uploads.execute("UPDATE worker_scans SET quarantine = 'pending', due_at = NOW(3)")
    uploads.execute("UPDATE message_attachments SET file_url = '/files/late' WHERE id = :id", id=attachment)
    told = []
    for _ in range(4):
        uploads.sweep()
        with uploads.engine.connect() as connection:
            told.append(connection.execute(text("SELECT COUNT(*) FROM worker_events")).scalar_one())

    record = uploads.record(attachment)
    assert (told, record.verdict, record.attempts, uploads.flags(attachment)) == ([told[0]] * 4, "waiting", 1, (0, 0))
    (uploads.folder / "files/late").write_bytes(PNG)
    uploads.make_due()
    uploads.sweep()
    assert uploads.flags(attachment) == (1, 1)


@pytest.mark.parametrize("name", ["abc", "àbc", "Abc "])
def test_a_file_on_its_way_is_not_taken_for_one_in_quarantine_whose_name_is_like_its_own(
    uploads: Uploads, vault: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ATTACHMENTS_LITERAL_NAMES", "true")  # else one with an outer blank is blocked
    reread()
    uploads.add(EICAR, file_url="/files/Abc")
    uploads.sweep()
    assert list(vault.iterdir())
    attachment = uploads.add(None, file_url=f"/files/{name}")
    uploads.sweep()
    assert uploads.record(attachment).verdict == "waiting"
    (uploads.folder / "files" / name).write_bytes(PNG)
    uploads.make_due()
    uploads.sweep()
    assert uploads.flags(attachment) == (1, 1)


def test_content_that_was_replaced_before_it_could_be_taken_is_scanned_and_not_taken(uploads: Uploads, vault: Path) -> None:
    attachment = uploads.add(EICAR)
    uploads.scan(attachment)
    uploads.sweep()
    uploads.path(attachment).write_bytes(PNG)
    uploads.execute("UPDATE worker_scans SET quarantine = 'pending', due_at = NOW(3)")

    uploads.sweep()
    uploads.sweep()

    assert uploads.path(attachment).read_bytes() == PNG
    assert uploads.flags(attachment) == (1, 1)
    assert [path.name for path in vault.iterdir()] == [f"{SHA256}.infected"]


def test_a_quarantine_that_cannot_be_written_is_tried_again_while_the_flags_block(uploads: Uploads, vault: Path) -> None:
    vault.rmdir()
    attachment = uploads.add(EICAR)

    uploads.scan(attachment)
    uploads.sweep()

    record = uploads.record(attachment)
    assert (record.quarantine, record.attempts, uploads.flags(attachment)) == ("pending", 1, (1, 0))
    assert f"the folder {vault} cannot be opened" in record.reason
    vault.mkdir()
    uploads.make_due()
    uploads.sweep()
    assert uploads.record(attachment).quarantine.startswith("file://")


def test_infected_objects_are_moved_from_s3_to_s3(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACHMENTS_URL", f"s3://{BUCKET}/uploads")
    monkeypatch.setenv("ATTACHMENTS_QUARANTINE_URL", f"s3://{BUCKET}/quarantine")
    monkeypatch.setenv("ATTACHMENTS_QUARANTINE", "move")
    reread()
    bucket: Any = boto3.resource("s3").Bucket(BUCKET)
    bucket.put_object(Key="uploads/files/bad", Body=EICAR)
    attachment = uploads.add(None, file_url="/files/bad")

    uploads.scan(attachment)
    uploads.sweep()

    assert [item.key for item in bucket.objects.filter(Prefix="uploads/files/bad")] == []
    [kept] = bucket.objects.filter(Prefix="quarantine/")
    assert kept.get()["Body"].read() == EICAR


def test_moving_out_of_an_http_storage_is_refused_at_the_start(
    uploads: Uploads, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vault
    monkeypatch.setenv("ATTACHMENTS_URL", "https://api.example.com")
    reread()
    with pytest.raises(ConfigurationError, match="ATTACHMENTS_QUARANTINE=move"):
        uploads.sweep()


class _Raising:
    """A storage that raises this whatever it is asked."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def open(self, _: str) -> Any:
        raise self._error


class _Interrupted(FileStorage):
    """A storage that does something else once it has given the first byte of a file."""

    def __init__(self, root: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(f"file://{root}")
        self._meanwhile = iter([meanwhile])

    @contextmanager
    def open(self, file_url: str) -> Iterator[Content]:
        with super().open(file_url) as content:
            yield replace(content, pieces=self._pieces(b"".join(content.pieces)))

    def _pieces(self, content: bytes) -> Iterator[bytes]:
        yield content[:1]
        next(self._meanwhile, lambda: None)()
        yield content[1:]


def test_two_workers_that_take_the_same_bytes_at_once_are_not_in_each_others_way(tmp_path: Path) -> None:
    uploads, vault = tmp_path / "uploads", tmp_path / "vault"
    for folder in (uploads, vault):
        folder.mkdir()
    for name in "12":
        (uploads / name).write_bytes(EICAR)
    first, second = (Attachment(n, f"/{n}", verdict="infected", sha256=SHA256, quarantine=PENDING) for n in (1, 2))
    quarantine = Quarantine(FileStorage(f"file://{vault}"), f"file://{vault}", move=True)
    settled = []

    def take_the_second() -> None:
        settled.append(quarantine.take(second, FileStorage(f"file://{uploads}")))

    settled.append(quarantine.take(first, _Interrupted(uploads, take_the_second)))

    copy = vault / f"{SHA256}.infected"
    assert [each.quarantine for each in settled] == [f"file://{copy}"] * 2
    assert [*vault.iterdir()] == [copy]
    assert copy.read_bytes() == EICAR
    assert [*uploads.iterdir()] == []


def test_content_that_is_gone_while_the_quarantine_is_away_is_tried_again_later() -> None:
    quarantine = Quarantine(cast(Storage, _Raising(StorageUnavailableError("it is away"))), "s3://quarantine", move=True)
    attachment = Attachment(1, "/files/1", verdict="infected", sha256=SHA256, quarantine=PENDING)

    settlement = quarantine.take(attachment, cast(Storage, _Raising(MissingError("it is gone"))))

    assert settlement.quarantine == PENDING
    assert settlement.attempts == 1
    assert settlement.wait


def test_what_is_decided_about_a_file_holds_for_all_its_rows(uploads: Uploads, vault: Path) -> None:
    infected = zipped(EICAR)
    first, same_file, same_bytes = uploads.add(infected), uploads.add(None, file_url="/files/0"), uploads.add(infected)
    uploads.scan(first)
    uploads.sweep()
    uploads.scan(same_file)
    uploads.sweep()

    rows = [uploads.record(each) for each in (first, same_file, same_bytes)]
    assert {(row.verdict, row.quarantine) for row in rows} == {("infected", f"file://{vault}/{rows[0].sha256}.infected")}

    done = CliRunner().invoke(cli, ["attachments", "release", str(same_file), "--reason", "ours", "--json"])
    assert json.loads(done.output)["released"] == 3
    uploads.sweep()
    assert [uploads.flags(each) for each in (first, same_file, same_bytes)] == [(1, 1)] * 3


def test_a_versioned_bucket_keeps_no_old_version_of_a_moved_virus(
    uploads: Uploads, vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    monkeypatch.setenv("ATTACHMENTS_URL", "s3://versioned")
    reread()
    client.put_object(Bucket="versioned", Key="files/bad", Body=EICAR)
    attachment = uploads.add(None, file_url="/files/bad")

    uploads.scan(attachment)
    uploads.sweep()

    assert len(list(vault.iterdir())) == 1
    assert "Versions" not in client.list_object_versions(Bucket="versioned", Prefix="files/bad")


def test_what_was_uploaded_since_the_check_is_not_removed_with_the_virus(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="replaced")
    client.put_bucket_versioning(Bucket="replaced", VersioningConfiguration={"Status": "Enabled"})
    monkeypatch.setenv("ATTACHMENTS_URL", "s3://replaced")
    reread()
    client.put_object(Bucket="replaced", Key="files/1", Body=EICAR)

    storage = open_storage(get_settings())
    with storage.open("/files/1") as content:
        client.put_object(Bucket="replaced", Key="files/1", Body=PNG)
        storage.remove("/files/1", content)

    assert client.get_object(Bucket="replaced", Key="files/1")["Body"].read() == PNG
    assert len(client.list_object_versions(Bucket="replaced", Prefix="files/1")["Versions"]) == 1
