"""The doctor of files, folders and buckets: what it says to run mends each at once, for the user that it is run as."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import pytest

from devstack.ports import free_port
from devstack.stack import Stack
from tests.doctor.conftest import Ask, Said, do_as_told, fault, is_well
from tests.processes import fork

ROOT = os.geteuid() == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the machine's, which every user may look into and only its owner write to."""
    with TemporaryDirectory(prefix="chat-workers-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_a_user(ask: Callable[[], Said]) -> Said:
    """Return what is said to a process that is not root: to root everything is open."""
    reader, writer = os.pipe()

    def answer() -> None:
        if ROOT:
            os.setgid(65_534)
            os.setuid(65_534)
        os.write(writer, json.dumps(ask()).encode())

    child = fork(answer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    return [(state, sentence) for state, sentence in said]


QUARANTINE = {"attachments_quarantine_url": "file://{}", "attachments_url": "file:///"}
MOVED = {"attachments_url": "file://{}", "attachments_quarantine_url": "s3://infected/chat", "attachments_quarantine": "move"}
FOLDERS = [
    ("uploads", {"attachments_url": "file://{}"}, 0o700),
    ("uploads", MOVED, 0o755),
    ("quarantine", QUARANTINE, 0o755),
    ("backups", {"backup_dir": "{}"}, 0o700),
]


@pytest.mark.skipif(not ROOT, reason="only root can make a folder that is another's")
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("what", "changes", "mode"), FOLDERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_folder_that_is_missing_or_anothers_is_mended_by_what_is_said(
    ask: Ask, place: Path, what: str, changes: dict[str, str], mode: int, missing: bool
) -> None:
    """A unit cannot make it below a folder that only the doctor may write to."""
    path = place / "deep" / "down" if missing else place / "here"
    if not missing:
        path.mkdir()
        path.chmod(mode)
    own: dict[str, object] = {name: value.format(path) for name, value in changes.items()}
    own = {name: Path(str(value)) if name.endswith("_dir") else value for name, value in own.items()}
    sentence = fault(as_a_user(lambda: ask(what, **own)))
    assert ("is no folder here; mount it" in sentence) == missing
    do_as_told(sentence)
    assert is_well(as_a_user(lambda: ask(what, **own)))


def test_uploads_need_only_be_read_where_nothing_is_moved(ask: Ask, place: Path) -> None:
    assert is_well(as_a_user(lambda: ask("uploads", attachments_url=f"file://{place}")))


def test_what_is_served_over_http_is_not_called_well(ask: Ask) -> None:
    assert [state for state, _ in ask("uploads", attachments_url="https://api.example.com")] == ["not tried"]


def test_a_backup_folder_that_others_may_read(ask: Ask, folder: Path) -> None:
    folder.chmod(0o755)
    do_as_told(fault(ask("backups", backup_dir=folder)))
    assert is_well(ask("backups", backup_dir=folder))


# Buckets


def test_a_bucket_that_is_not_there(ask: Ask, passphrase: Path, stack: Stack) -> None:
    changes = {"backup_s3_uri": "s3://no-such-bucket/chat", "backup_passphrase_file": passphrase}
    sentence = fault(ask("bucket", **changes))
    assert sentence.endswith("run: aws s3 mb s3://no-such-bucket")
    client = boto3.client("s3")  # the program `aws` is not among those of the tests
    client.create_bucket(Bucket="no-such-bucket")
    assert is_well(ask("bucket", **changes, backup_s3_ship="daily"))
    assert [state for state, _ in ask("bucket", **changes)] == ["OK", "OK", "RISK"]
    client.delete_bucket(Bucket="no-such-bucket")


def test_s3_that_is_away(ask: Ask, passphrase: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    assert "see the AWS_* variables" in fault(ask("bucket", backup_s3_uri="s3://b-b-b", backup_passphrase_file=passphrase))


def test_without_a_passphrase_nothing_is_shipped(ask: Ask) -> None:
    assert "set BACKUP_PASSPHRASE_FILE" in fault(ask("bucket", backup_s3_uri="s3://backups/chat"))
    assert [state for state, _ in ask("passphrase")] == ["not configured"]


# Files with secrets

FILES = [
    ("push", "google_application_credentials", ""),
    ("passphrase", "backup_passphrase_file", "correct horse battery staple\n"),
]


@pytest.mark.parametrize("mode", [0o644, 0o600])
@pytest.mark.parametrize(("what", "variable", "content"), FILES, ids=[what for what, *_ in FILES])
def test_a_file_with_a_secret_that_is_open_or_anothers_is_mended_by_what_is_said(
    ask: Ask, stack: Stack, place: Path, what: str, variable: str, content: str, mode: int
) -> None:
    path = place / "file"
    path.write_text(content or stack.fcm.service_account.read_text())
    path.chmod(mode)
    own = {variable: path, "offline": True, "ssl_cert_file": None}
    said = as_a_user(lambda: ask(what, **own))
    if ROOT or mode == 0o644:
        sentence = fault(said)
        assert f"{path} ({variable.upper()})" in sentence
        do_as_told(sentence)
    said = as_a_user(lambda: ask(what, **own))
    assert "WRONG" not in [state for state, _ in said], said


def test_a_passphrase_that_is_missing_is_made_by_what_is_said(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "file"
    do_as_told(fault(ask("passphrase", backup_passphrase_file=path)))
    assert is_well(ask("passphrase", backup_passphrase_file=path))
