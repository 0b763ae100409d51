"""Each row of the verdict table, met with the real clamd."""

import os
import random
import socket
from pathlib import Path

import pytest

from tasks.attachments import scannable
from tasks.attachments.verdicts import Kind, read_reply

from .conftest import Uploads
from .samples import CLEAN, INFECTED, PNG, UNSCANNABLE

LIMIT = 25 * 2**20


@pytest.mark.parametrize("content", CLEAN.values(), ids=CLEAN.keys())
def test_what_clamd_looked_at_and_found_clean_may_be_served(uploads: Uploads, content: bytes) -> None:
    attachment = uploads.add(content)

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (1, 1)
    record = uploads.record(attachment)
    assert (record.verdict, record.size, record.due_at, record.lease) == ("clean", len(content), None, None)
    assert record.engine.startswith("1.")
    assert record.database_version >= 27_000


@pytest.mark.parametrize("content", INFECTED.values(), ids=INFECTED.keys())
def test_infected_content_is_scanned_and_not_safe_however_it_is_packed(uploads: Uploads, content: bytes) -> None:
    attachment = uploads.add(content)

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (1, 0)
    assert uploads.record(attachment).signature == "Eicar-Test-Signature.UNOFFICIAL"
    assert uploads.events(attachment) == ["infected"]


@pytest.mark.parametrize(("content", "reason"), UNSCANNABLE.values(), ids=UNSCANNABLE.keys())
def test_what_clamd_could_not_look_into_is_blocked_with_the_reason(uploads: Uploads, content: bytes, reason: str) -> None:
    attachment = uploads.add(content)

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (0, 0)
    record = uploads.record(attachment)
    assert (record.verdict, record.due_at) == ("unscannable", None)
    assert reason in record.reason


def test_a_file_of_exactly_the_largest_size_is_scanned_to_its_end(uploads: Uploads) -> None:
    clean = uploads.add(random.Random(1).randbytes(LIMIT))  # others may hold an archive's mark by chance
    infected = uploads.add(b"".join(scannable.padded(LIMIT)))

    uploads.scan(clean)
    uploads.scan(infected)

    assert uploads.flags(clean) == (1, 1)
    assert uploads.flags(infected) == (1, 0)


def test_a_file_one_byte_above_the_largest_size_is_blocked(uploads: Uploads) -> None:
    attachment = uploads.add(bytes(LIMIT + 1))

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (0, 0)
    assert "ATTACHMENTS_LARGEST_BYTES" in uploads.record(attachment).reason


def test_a_sparse_file_of_a_gigabyte_is_blocked_without_being_read(uploads: Uploads) -> None:
    attachment = uploads.add(b"")
    os.truncate(uploads.path(attachment), 2**30)

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (0, 0)
    assert uploads.record(attachment).sha256 is None


def test_a_name_with_right_to_left_marks_is_only_a_name(uploads: Uploads) -> None:
    name = "invoice \u202efdp.exe"
    attachment = uploads.add(PNG, file_name=name, file_url=f"/files/{name}")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (1, 1)


@pytest.mark.parametrize("columns", [{"file_type": "application/pdf"}, {"file_extension": "exe"}], ids=str)
def test_what_the_row_declares_of_its_file_decides_nothing(uploads: Uploads, columns: dict[str, object]) -> None:
    attachment = uploads.add(PNG, **columns)

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (1, 1)


@pytest.mark.parametrize(
    "file_url",
    [
        "/../secret",
        "/files/../../secret",
        "../secret",
        "/files/./a",
        "//elsewhere/secret",
        "file:///etc/passwd",
        "http://elsewhere/secret",
        "/files\\..\\secret",
        "/link",
        "/folder-link/secret",
        "/fifo",
        "/socket",
        "/folder",
        "/folder/",
        "",
    ],
)
def test_a_file_url_that_leads_out_of_the_root_or_to_no_plain_file_is_refused(
    uploads: Uploads, file_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(b"clean, and none of their business")
    (uploads.folder / "link").symlink_to(tmp_path / "secret")
    (uploads.folder / "folder-link").symlink_to(tmp_path)
    (uploads.folder / "folder").mkdir()
    os.mkfifo(uploads.folder / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(uploads.folder)  # the full path may be too long for a socket
        server.bind("socket")
    attachment = uploads.add(None, file_url=file_url)

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (0, 0)
    record = uploads.record(attachment)
    assert (record.verdict, record.due_at) == ("unscannable", None)
    assert "file_url" in record.reason


def test_an_absolute_path_is_one_below_the_root(uploads: Uploads) -> None:
    attachment = uploads.add(None, file_url="/etc/passwd")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (0, 1)
    assert "not there" in uploads.record(attachment).reason


def test_a_file_url_may_be_a_whole_url_under_the_root(uploads: Uploads) -> None:
    (uploads.folder / "whole").write_bytes(PNG)
    attachment = uploads.add(None, file_url=f"file://{uploads.folder}/whole")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (1, 1)


def test_a_missing_file_is_tried_again_and_blocked_and_tried_on(uploads: Uploads) -> None:
    attachment = uploads.add(None)
    uploads.scan(attachment)
    for attempt in range(1, 30):
        assert uploads.flags(attachment) == ((0, 1) if attempt < 6 else (0, 0))
        assert uploads.record(attachment).attempts == attempt
        uploads.make_due()
        uploads.sweep()

    record = uploads.record(attachment)
    assert (record.verdict, record.reason) == ("unverified", "the file is not there (try 30)")
    assert record.due_at is not None


def test_a_file_that_comes_late_is_found_by_its_next_try(uploads: Uploads) -> None:
    attachment = uploads.add(None)
    uploads.scan(attachment)
    uploads.path(attachment).parent.mkdir()
    uploads.path(attachment).write_bytes(PNG)

    uploads.make_due()
    uploads.sweep()

    assert uploads.flags(attachment) == (1, 1)
    assert uploads.record(attachment).attempts == 0


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"stream: OK\0", Kind.CLEAN),
        (b"stream: OK", Kind.CLAMD),
        (b"stream: OK\n", Kind.CLAMD),
        (b"stream: OK\0stream: OK\0", Kind.CLAMD),
        (b"/etc/passwd: OK\0", Kind.CLAMD),
        (b"stream: Win.Test FOUND\0", Kind.INFECTED),
        (b"stream: OK FOUND\0", Kind.INFECTED),
        (b"stream: Heuristics.Encrypted.PDF FOUND\0", Kind.ENCRYPTED),
        (b"stream: Heuristics.Limits.Exceeded.MaxScanTime FOUND\0", Kind.OVER_LIMIT),
        (b"stream: Heuristics.Broken.Executable FOUND\0", Kind.BROKEN),
        (b"stream: Heuristics.Phishing.Email FOUND\0", Kind.INFECTED),
        (b"INSTREAM size limit exceeded. ERROR\0", Kind.TOO_LARGE),
        (b"stream: Can't allocate memory ERROR\0", Kind.CLAMD),
        (b"stream: Can't create temporary file ERROR\0", Kind.CLAMD),
        (b"stream: Can't parse data ERROR\0", Kind.FAILED),
        (b"COMMAND READ TIMED OUT\n", Kind.STORAGE),
        (b"UNKNOWN COMMAND\0", Kind.CLAMD),
        (b"", Kind.FAILED),
        (b"\xff\xfe", Kind.CLAMD),
    ],
)
def test_a_reply_that_is_not_known_to_the_letter_is_never_clean(reply: bytes, kind: Kind) -> None:
    assert read_reply(reply)[0] is kind
