"""clamd, MariaDB and workers that die, hang and come back: every attachment ends with a true verdict all the same."""

import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from sqlalchemy import text

from devstack.stack import Stack
from tasks.attachments import run, scannable
from tasks.attachments.clamd import Clamd, ClamdUnavailableError
from tasks.attachments.scannable import EICAR
from tests.processes import wait_until

from .conftest import Uploads, being_scanned, reread
from .samples import PNG

FILES = [PNG, EICAR, os.urandom(2**20), b"hello"]
FLAGS = [(1, 1), (1, 0), (1, 1), (1, 1)]


@pytest.fixture
def known_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that clamd told before its pause holds, however slow the machine: no scan begins by asking a paused clamd."""
    monkeypatch.setattr("tasks.attachments.clamd.VERSION_SECONDS", 600)


def settle_all(uploads: Uploads, attachments: list[int], seconds: float = 30) -> list[tuple[int, int]]:
    """Sweep, with all leases over and all next tries due, until each attachment has a verdict; return their flags."""
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        uploads.make_due()
        uploads.sweep()
        with uploads.engine.connect() as connection:
            if not connection.execute(text("SELECT COUNT(*) FROM worker_scans WHERE due_at IS NOT NULL")).scalar_one():
                break
    return [uploads.flags(attachment) for attachment in attachments]


def test_with_clamd_gone_rows_wait_and_are_blocked_in_the_end_and_heal_when_it_is_back(uploads: Uploads, clamd: Any) -> None:
    attachment = uploads.add(PNG)
    clamd.kill()
    for attempt in range(1, 9):
        uploads.scan(attachment)
        uploads.make_due()
        assert uploads.record(attachment).attempts == attempt
        assert uploads.flags(attachment) == ((0, 1) if attempt < 8 else (0, 0))
    record = uploads.record(attachment)
    assert (record.verdict, record.due_at is None) == ("unverified", False)
    assert "clamd cannot be reached" in record.reason
    clamd.start()

    assert settle_all(uploads, [attachment]) == [(1, 1)]
    assert uploads.events(attachment) == ["unverified", "clean"]


def test_an_ok_to_a_part_of_what_lies_inside_of_a_file_is_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("clamd") / "clamd.ctl"

    def answer_early() -> None:
        with listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(b"stream: OK\0")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=answer_early, daemon=True).start()
        with pytest.raises(ClamdUnavailableError, match="OK to a part"):
            scannable.ask(Clamd(f"unix://{path}", scan_seconds=30), [bytes(2**20)] * 64)


def test_a_clamd_that_is_away_costs_one_try_each_not_a_queue_of_them(uploads: Uploads, clamd: Any) -> None:
    for number in range(60):
        uploads.add(bytes([number]))
    clamd.kill()

    summary = uploads.sweep()

    assert sum(summary.verdicts.values()) < 10
    assert summary.given_back > 0


@pytest.mark.usefixtures("known_version")
@pytest.mark.parametrize("fault", ["kill", "pause", "restart", "reload"])
def test_a_clamd_that_fails_in_mid_scan_leaves_no_false_verdict(uploads: Uploads, clamd: Any, fault: str) -> None:
    attachments = [uploads.add(content) for content in FILES]
    paths = [uploads.path(attachment) for attachment in attachments]
    uploads.scan(uploads.add(b"warm"))
    clamd.pause()
    sweep = threading.Thread(target=uploads.sweep)
    sweep.start()
    wait_until(lambda: all(map(being_scanned, paths)), "all files were being scanned")
    if fault == "kill":
        clamd.kill()
        clamd.start()
    elif fault == "pause":
        clamd.resume()
    elif fault == "restart":
        clamd.restart()
    else:
        clamd.resume()
        clamd.publish(27_001)
    sweep.join()

    assert settle_all(uploads, attachments) == FLAGS


def test_a_clamd_that_hangs_is_given_up_on_by_its_deadline(
    uploads: Uploads, clamd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAMD_SCAN_SECONDS", "1")
    reread()
    attachment = uploads.add(PNG)
    uploads.scan(uploads.add(b"warm"))
    clamd.pause()
    began = time.monotonic()

    uploads.scan(attachment)

    assert time.monotonic() - began < 8
    assert uploads.record(attachment).reason == "clamd did not answer in time (try 1)"


@pytest.mark.usefixtures("known_version")
@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_database_that_fails_in_mid_scan_loses_no_attachment(
    uploads: Uploads, scanners: Stack, stack: Stack, fault: str
) -> None:
    attachments = [uploads.add(content) for content in FILES]
    paths = [uploads.path(attachment) for attachment in attachments]
    uploads.scan(uploads.add(b"warm"))
    scanners.clamd.pause()
    sweep = threading.Thread(target=uploads.sweep)
    sweep.start()
    wait_until(lambda: all(map(being_scanned, paths)), "all files were being scanned")
    if fault == "kill":
        stack.mariadb.kill()
        scanners.clamd.resume()
        stack.mariadb.start()
    else:
        stack.mariadb.pause()
        scanners.clamd.resume()
        time.sleep(0.5)
        stack.mariadb.resume()
    sweep.join()

    assert settle_all(uploads, attachments) == FLAGS


def test_a_killed_worker_gives_its_rows_back_when_the_lease_ends(uploads: Uploads, scanners: Stack) -> None:
    uploads.add(b"warm")
    program = "import tasks.attachments.clamd as c; from tasks.attachments import run; c.VERSION_SECONDS = 600;"
    program += "run.sweep(); print(flush=True); input(); run.sweep()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        while worker.stdout.readline() != b"\n":
            assert worker.poll() is None
        attachments = [uploads.add(content) for content in FILES]
        scanners.clamd.pause()
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        deadline = time.monotonic() + 20
        while not leased(uploads):
            assert time.monotonic() < deadline
        worker.kill()
    scanners.clamd.resume()

    assert not uploads.sweep().verdicts
    assert settle_all(uploads, attachments) == FLAGS


def leased(uploads: Uploads) -> int:
    with uploads.engine.connect() as connection:
        return int(connection.execute(text("SELECT COUNT(*) FROM worker_scans WHERE lease IS NOT NULL")).scalar_one())


def test_content_that_keeps_killing_workers_is_blocked(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.execute("INSERT INTO worker_scans (attachment_id, due_at, claims) VALUES (:id, NOW(3), 5)", id=attachment)

    uploads.sweep()

    assert uploads.flags(attachment) == (0, 0)
    assert uploads.record(attachment).reason.startswith("5 scans of it broke off")


def test_a_result_that_comes_after_its_lease_has_passed_on_changes_nothing(uploads: Uploads, scanners: Stack) -> None:
    attachment = uploads.add(PNG)
    path = uploads.path(attachment)
    uploads.scan(uploads.add(b"warm"))
    scanners.clamd.pause()
    scan = threading.Thread(target=uploads.scan, args=[attachment])
    scan.start()
    wait_until(lambda: being_scanned(path), "the file was being scanned")
    uploads.execute("UPDATE worker_scans SET lease = 'another' WHERE attachment_id = :id", id=attachment)
    scanners.clamd.resume()
    scan.join()

    assert uploads.flags(attachment) == (0, 1)
    assert uploads.record(attachment).lease == "another"


@pytest.mark.parametrize(
    ("options", "sentence", "fatal"),
    [
        ({"AlertExceedsMax": "no"}, '"AlertExceedsMax yes"', True),
        ({"AlertEncrypted": "no"}, '"AlertEncrypted yes"', True),
        ({"StreamMaxLength": "5M"}, '"StreamMaxLength 25M"', False),
        ({"MaxFileSize": "5M"}, '"MaxFileSize 100M"', True),
        ({"MaxFileSize": "50M"}, "MaxFileSize is below MaxScanSize", True),
    ],
    ids=str,
)
def test_a_clamd_whose_ok_cannot_be_believed_scans_nothing_and_small_limits_are_named(
    uploads: Uploads, clamd: Any, options: dict[str, str], sentence: str, fatal: bool
) -> None:
    clamd.configure(options)
    clamd.restart()
    attachment = uploads.add(PNG)

    found = scannable.faults(Clamd(clamd.url, scan_seconds=30), 25 * 2**20)
    uploads.scan(attachment)

    assert any(sentence in fault.sentence for fault in found)
    assert any(fault.fatal for fault in found) == fatal
    assert uploads.flags(attachment) == ((0, 1) if fatal else (1, 1))


def test_what_is_over_a_smaller_limit_of_clamd_is_blocked(uploads: Uploads, clamd: Any) -> None:
    clamd.configure({"StreamMaxLength": "2M"})
    clamd.restart()
    under, over = uploads.add(os.urandom(2 * 2**20)), uploads.add(os.urandom(20 * 2**20))

    uploads.sweep()

    assert (uploads.flags(under), uploads.flags(over)) == ((1, 1), (0, 0))
    assert "StreamMaxLength" in uploads.record(over).reason


def test_clamd_is_reached_over_tcp_too(uploads: Uploads, scanners: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAMD_URL", scanners.clamd.tcp_url)
    reread(another_clamd=True)
    attachment = uploads.add(EICAR)

    run.scan_one(attachment)

    assert uploads.flags(attachment) == (1, 0)
