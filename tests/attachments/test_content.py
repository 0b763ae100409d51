"""(1, 1) is about exactly the bytes that were scanned: what happens when content changes, and when it is known already."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devstack.stack import Stack
from tasks.attachments.scannable import EICAR
from tests.processes import wait_until

from .conftest import Uploads, being_scanned
from .samples import PNG, zipped


def replace_file(path: Path, content: bytes) -> None:
    (path.parent / "new").write_bytes(content)
    (path.parent / "new").replace(path)


def write_in_place(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def forge_times(path: Path, content: bytes) -> None:
    before = path.stat()
    write_in_place(path, content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def in_mid_scan(clamd: Any, path: Path, change: Callable[[], None]) -> Iterator[None]:
    """While the body scans the file, with clamd hanging, let `change` happen, and clamd go on after it."""

    def act() -> None:
        try:
            wait_until(lambda: being_scanned(path), "the file was being scanned")
            change()
        finally:
            clamd.resume()

    clamd.pause()
    with ThreadPoolExecutor(1) as thread:
        acting = thread.submit(act)
        yield
        acting.result()


@pytest.mark.parametrize("change", [replace_file, write_in_place, append, forge_times])
def test_content_that_changes_in_mid_scan_is_scanned_again(uploads: Uploads, scanners: Stack, change: Any) -> None:
    attachment = uploads.add(os.urandom(4096))
    uploads.scan(uploads.add(b"warm"))
    path = uploads.path(attachment)

    with in_mid_scan(scanners.clamd, path, lambda: change(path, EICAR)):
        uploads.scan(attachment)
    assert uploads.flags(attachment) == (0, 1)
    uploads.make_due()
    uploads.sweep()

    infected = change is not append  # this signature is tied to the file's beginning
    assert uploads.flags(attachment) == ((1, 0) if infected else (1, 1))
    assert uploads.record(attachment).size == path.stat().st_size


def test_content_that_goes_away_in_mid_scan_has_no_verdict(uploads: Uploads, scanners: Stack) -> None:
    attachment = uploads.add(PNG)
    uploads.scan(uploads.add(b"warm"))
    path = uploads.path(attachment)

    with in_mid_scan(scanners.clamd, path, path.unlink):
        uploads.scan(attachment)

    assert uploads.flags(attachment) == (0, 1)
    assert uploads.record(attachment).verdict == "waiting"


def test_a_row_that_names_another_file_by_the_end_of_its_scan_is_scanned_anew(uploads: Uploads, scanners: Stack) -> None:
    attachment = uploads.add(PNG)
    uploads.add(EICAR, file_url="/files/other")
    uploads.scan(uploads.add(b"warm"))

    def rename() -> None:
        uploads.execute("UPDATE message_attachments SET file_url = '/files/other' WHERE id = :id", id=attachment)

    with in_mid_scan(scanners.clamd, uploads.path(attachment), rename):
        uploads.scan(attachment)
    assert uploads.flags(attachment) == (0, 1)
    uploads.sweep()

    assert uploads.flags(attachment) == (1, 0)


def test_a_served_row_that_comes_to_name_another_file_is_blocked_and_scanned(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.scan(attachment)
    uploads.execute("UPDATE message_attachments SET file_url = '/files/nowhere' WHERE id = :id", id=attachment)

    uploads.sweep()

    assert uploads.flags(attachment) == (0, 0)


@pytest.mark.parametrize("kind", ["VARCHAR(600)", "TEXT"])
def test_no_file_is_served_for_the_beginning_of_its_address(uploads: Uploads, kind: str) -> None:
    uploads.execute(f"ALTER TABLE message_attachments MODIFY file_url {kind} NOT NULL")
    try:
        longest = "/d" * 249 + "/x"
        served, changed = uploads.add(PNG, file_url=longest), uploads.add(PNG, file_url=longest)
        uploads.sweep()
        other = uploads.add(EICAR, file_url=f"{longest}evil")
        uploads.execute("UPDATE message_attachments SET file_url = CONCAT(file_url, 'evil') WHERE id = :id", id=changed)
        uploads.sweep()
        assert [uploads.flags(attachment) for attachment in (served, changed, other)] == [(1, 1), (0, 0), (0, 0)]
        assert "more than 500 characters" in uploads.record(other).reason
        assert not uploads.sweep().verdicts  # and that is all about it
    finally:
        uploads.execute("DELETE FROM message_attachments")
        uploads.execute("ALTER TABLE message_attachments MODIFY file_url VARCHAR(500) NOT NULL")


def test_the_same_content_under_the_same_signatures_is_scanned_once(uploads: Uploads, scanners: Stack) -> None:
    infected = zipped(EICAR, "same.com")
    first, second = uploads.add(infected), uploads.add(infected)
    uploads.scan(first)
    before = scanners.clamd.log.read_bytes().count(b"FOUND")

    uploads.scan(second)

    assert uploads.flags(second) == (1, 0)
    assert uploads.record(second).signature == uploads.record(first).signature
    assert scanners.clamd.log.read_bytes().count(b"FOUND") == before


def test_another_scan_of_an_unchanged_file_changes_nothing(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.scan(attachment)
    before = uploads.record(attachment)._asdict()

    uploads.scan(attachment)
    uploads.sweep()

    assert uploads.flags(attachment) == (1, 1)
    assert uploads.record(attachment)._asdict() | {"scanned_at": before["scanned_at"]} == before
    assert uploads.events(attachment) == []


def test_another_scan_of_a_file_that_was_replaced_finds_what_is_there_now(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.scan(attachment)
    uploads.path(attachment).write_bytes(EICAR)

    uploads.scan(attachment)
    uploads.sweep()

    assert uploads.flags(attachment) == (1, 0)
    assert uploads.events(attachment) == ["infected"]
