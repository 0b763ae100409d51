"""Looks into content are done by processes that the kernel bounds: what they are ended over is that file's, and no other's."""

import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tasks import shutdown
from tasks.attachments import looks
from tasks.attachments.clamd import ClamdUnavailableError
from tasks.attachments.looks import Scan, StoppedError
from tasks.attachments.scannable import EICAR
from tasks.attachments.verdicts import FaultError, Kind
from tests.processes import Process, Start, wait_until

from .conftest import Uploads
from .samples import ENDLESS, mail, ole2, pdf, zipped

CORES = len(os.sched_getaffinity(0))
# Decoded as a whole; to clamd its first header makes it no mail.
LARGE = zipped(b"A: 1\nTo: b\nContent-Transfer-Encoding: quoted-printable\n\n" + b"hello world\n" * 2_000_000, level=1)


def end_helpers() -> None:
    for helper in [looks._free.get(timeout=60) for _ in range(CORES)]:
        helper._end()
        looks._free.put(helper)


@pytest.fixture(autouse=True)
def helpers() -> Iterator[None]:
    """Helpers are started with the bounds that a test sets, and none is there before or after it."""
    end_helpers()
    yield
    end_helpers()


def helpers_of(pid: int | str = "self") -> list[int]:
    """Return the process ids of a process's helpers."""
    found = list[int]()
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):
                    if b"tasks.attachments.looks" in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.append(int(child))
    return found


def is_busy(pid: int) -> bool:
    """Return whether a helper has used more CPU than its start takes."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) > 1.5 * os.sysconf("SC_CLK_TCK")


def scanned_by_nobody(chunks: Iterator[bytes]) -> None:
    raise AssertionError


def look(content: bytes, scan: Scan = scanned_by_nobody, seconds: float = 180) -> set[str]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return looks.look(file, 1 << 27, scan, seconds)


@pytest.mark.parametrize(
    ("bound", "to", "content", "reason"),
    [
        ("CPU_SECONDS", 1, ENDLESS, "more in it than can be looked through in 1 s of CPU"),
        ("MEMORY_BYTES", 48 << 20, LARGE, "more in it than can be looked through in 48 MiB of memory"),
    ],
)
def test_what_a_look_is_ended_over_is_blocked_and_what_comes_with_it_has_its_verdict(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, bound: str, to: int, content: bytes, reason: str
) -> None:
    monkeypatch.setattr(looks, bound, to)
    bad = [uploads.add(content + bytes([number])) for number in range(2 * CORES)]
    good, infected = uploads.add(zipped(b"hello")), uploads.add(pdf(EICAR, b"/Filter /FlateDecode %"))

    uploads.sweep()

    assert {uploads.record(each).reason for each in bad} == {reason}
    assert {uploads.flags(each) for each in bad} == {(0, 0)}
    assert (uploads.flags(good), uploads.flags(infected)[1]) == ((1, 1), 0)


def test_a_look_that_is_ended_from_outside_is_begun_anew_later(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    attachment = uploads.add(ENDLESS)
    scan = threading.Thread(target=uploads.scan, args=[attachment])
    scan.start()
    wait_until(lambda: any(map(is_busy, helpers_of())), "a helper was at it")
    for helper in helpers_of():
        os.kill(helper, signal.SIGKILL)
    scan.join()
    record = uploads.record(attachment)
    assert record.reason == "the look into it broke off, with status -9 (try 1)"
    assert (record.verdict, record.attempts) == ("waiting", 1)

    monkeypatch.setattr(looks, "CPU_SECONDS", 1)
    uploads.make_due()
    uploads.sweep()
    assert uploads.record(attachment).verdict == "unscannable"


def test_a_helper_that_has_ended_between_two_looks_is_no_files_fault() -> None:
    assert look(b"hello") == set()
    (helper,) = helpers_of()
    os.kill(helper, signal.SIGKILL)
    os.waitid(os.P_PID, helper, os.WEXITED | os.WNOWAIT)
    assert look(zipped(b"hello")) == {"zip", "zip Deflate"}


def test_what_is_handed_back_to_be_scanned_is_what_lies_inside() -> None:
    content, scanned = random.Random(1).randbytes(3 << 20), list[bytes]()  # in other bytes a gzip may begin by chance
    assert look(pdf(content), lambda chunks: scanned.append(b"".join(chunks))) == {"pdf"}
    assert scanned == [content]
    assert look(pdf(content), lambda _chunks: None) == {"pdf"}  # clamd has answered before it had all
    assert look(b"") == set()
    with pytest.raises(FaultError, match="an encrypted Office document") as error:
        look(ole2({"EncryptedPackage": b"hello"}))
    assert error.value.kind is Kind.ENCRYPTED


def test_what_a_scan_of_a_part_raises_ends_the_look() -> None:
    def infected(_chunks: Iterator[bytes]) -> None:
        raise FaultError(Kind.INFECTED, "found", "Eicar")

    for _ in range(2):
        with pytest.raises(FaultError) as error:
            look(pdf(EICAR), infected)
        assert error.value.signature == "Eicar"
    assert helpers_of() == []


def test_looks_side_by_side_have_each_their_own_answer_and_leave_nothing_behind() -> None:
    contents = {b"hello": set[str](), zipped(b"x"): {"zip", "zip Deflate"}, b"{\\rtf1": {"rtf"}, mail(b"hello"): {"mail"}}
    wanted = [*contents.items()] * 50

    def scanned(chunks: Iterator[bytes]) -> None:
        assert b"".join(chunks) == b"hello"

    def right(item: tuple[bytes, set[str]]) -> bool:
        return look(item[0], scanned) == item[1]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(right, wanted[:50]))
        open_files = len(list(Path("/proc/self/fd").iterdir()))
        assert all(threads.map(right, wanted))
    assert len(helpers_of()) <= CORES
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files + 2  # a helper more may have been started
    end_helpers()
    assert helpers_of() == []


def test_a_helper_that_holds_much_of_its_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(b"hello") == set()
    assert len(helpers_of()) == 1
    end_helpers()
    monkeypatch.setattr(looks, "MEMORY_BYTES", 24 << 20)
    assert look(b"hello") == set()
    assert helpers_of() == []


def test_a_helper_that_does_not_start_is_no_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/bin/false", "/nowhere"):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(ClamdUnavailableError, match="the process that looks into content does not start"):
            look(b"hello")


def test_a_stop_ends_a_look_and_the_wait_for_one() -> None:
    shutdown.request_stop()
    try:
        with pytest.raises(StoppedError):
            look(ENDLESS)
        assert helpers_of() == []
        kept = [looks._free.get() for _ in range(CORES)]
        with pytest.raises(StoppedError):
            look(b"hello")
    finally:
        shutdown.forget()
    with pytest.raises(StoppedError):
        look(b"hello", seconds=0)
    for helper in kept:
        looks._free.put(helper)
    with pytest.raises(FaultError, match="did not come to an end") as error:
        look(ENDLESS, seconds=0)
    assert error.value.kind is Kind.FAILED


def test_a_helper_has_no_secrets_and_minds_no_signal_of_a_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTS_SECRET", "a secret")
    seen = list[tuple[set[bytes], set[str]]]()

    def scan(chunks: Iterator[bytes]) -> None:
        (pid,) = helpers_of()
        names = {each.partition(b"=")[0] for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if each}
        files = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
        seen.append((names, {name.partition(":")[0] for name in files}))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            os.kill(pid, number)
        list(chunks)

    assert look(pdf(b"hello"), scan) == {"pdf"}
    ((names, files),) = seen
    assert names <= {b"TMPDIR", b"LC_CTYPE"}
    assert {"pipe", "socket"} <= files
    assert sum(name == "socket" for name in files) == 1


@pytest.fixture
def worker(uploads: Uploads, start: Start) -> Process:
    return start("celery -A workers.app worker -Q attachments -c 1", "worker")


@pytest.mark.parametrize("how", ["it is stopped", "it is killed"])
def test_a_helper_ends_with_its_worker_in_the_middle_of_a_look(
    uploads: Uploads, worker: Process, environment: dict[str, str], how: str
) -> None:
    attachment = uploads.add(ENDLESS)
    with Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False) as producer:
        producer.send_task("tasks.attachments.scan", [attachment], queue="attachments")
    found = list[int]()

    def at_work() -> bool:
        found[:] = [helper for child in worker.children for helper in helpers_of(child)]
        return any(map(is_busy, found))

    worker.wait_until(at_work, "a helper was at it")
    if how == "it is stopped":
        worker.send_all(signal.SIGTERM)
        assert worker.wait() == 0
        record: Any = uploads.record(attachment)
        assert (record.lease, record.claims, record.attempts, record.verdict) == (None, 0, 0, "waiting")
    else:
        for child in (*worker.children, worker.pid):
            os.kill(child, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{helper}/exe").exists() for helper in found), "the helpers had ended")
