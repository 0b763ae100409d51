"""A fault that passes is never final: of a storage, of clamd, of a quarantine; and one that follows a file is that file's."""

import hashlib
import select
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis
from sqlalchemy import text

from tasks import counters
from tasks.attachments import find_unqueued, looks, run, scan, scannable
from tasks.attachments.clamd import Version
from tasks.attachments.facts import SCANS
from tasks.attachments.queue import LEASE_SECONDS, Queue
from tasks.attachments.scan import MOST_CLAIMS
from tasks.attachments.scannable import EICAR
from tasks.attachments.settlement import Attachment, delay, settle
from tasks.attachments.verdicts import Finding, Kind
from workers.cli import cli

from .conftest import Uploads, reread
from .samples import PNG, pdf
from .server import Answer, Server


class Fake:
    """A clamd that passes all on to the real one, but fails at content with a word in it as it is told, or hangs (None)."""

    def __init__(self, real: str, socket_path: Path, failure: str | None, *words: bytes) -> None:
        self.tries = 0
        self.beside_the_suspect = 0
        self._active = 0
        self._real, self._failure, self._words = real, failure, words or (b"poison",)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(socket_path))
        self._listener.listen(50)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=[client], daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as real, self._counted():
            real.connect(self._real)
            sent = b""
            while True:
                ready, _, _ = select.select([client, real], [], [])
                for source, target in ((client, real), (real, client)):
                    if source in ready:
                        part = source.recv(1 << 16)
                        if not part:
                            return
                        sent = sent[-64:] + part
                        if source is client and any(word in sent for word in self._words):
                            self.tries += 1
                            if self._failure is None:
                                deque(iter(partial(client.recv, 1 << 16), b""), 0)
                                return
                            client.sendall(self._failure.encode())
                            return
                        if source is client and b"suspect" in sent:
                            self.beside_the_suspect += self._active - 1
                        with suppress(BrokenPipeError):  # it has heard enough, and its answer is on the way
                            target.sendall(part)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize("failure", ["stream: Can't parse data ERROR\0", ""], ids=["an error", "no answer"])
def test_a_file_that_clamd_fails_at_is_charged_alone_and_blocked_by_its_hash(
    uploads: Uploads, scanners: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    path = tmp_path_factory.mktemp("s") / "c"
    fake = Fake(str(scanners.clamd.socket), path, failure)
    monkeypatch.setenv("CLAMD_URL", f"unix://{path}")
    reread(another_clamd=True)
    bad = uploads.add(b"poison")
    good = [uploads.add(b"good %d" % number) for number in range(9)]

    uploads.sweep()
    assert {uploads.flags(each) for each in good} == {(1, 1)}
    for _ in range(9):
        uploads.make_due()
        uploads.sweep()

    assert (uploads.flags(bad), fake.tries) == ((0, 0), 5)
    record = uploads.record(bad)
    assert (record.verdict, record.sha256, record.due_at) == ("unscannable", hashlib.sha256(b"poison").hexdigest(), None)
    done = CliRunner().invoke(cli, ["attachments", "release", str(bad), "--reason", "ours"])
    assert done.exit_code == 0, done.output
    uploads.sweep()
    assert uploads.flags(bad) == (1, 1)
    fake.close()


def test_a_file_that_may_end_clamd_is_scanned_when_nothing_else_is(
    uploads: Uploads, scanners: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path_factory.mktemp("s") / "c"
    fake = Fake(str(scanners.clamd.socket), path, "")
    monkeypatch.setenv("CLAMD_URL", f"unix://{path}")
    reread(another_clamd=True)
    suspect = uploads.add(b"suspect")
    uploads.execute("INSERT INTO worker_scans (attachment_id, due_at, claims) VALUES (:id, NOW(3), 2)", id=suspect)
    others = [uploads.add(b"other %d" % number) for number in range(30)]

    uploads.sweep()

    assert {uploads.flags(each) for each in [suspect, *others]} == {(1, 1)}
    assert fake.beside_the_suspect == 0
    assert uploads.record(suspect).scanned_at >= max(uploads.record(each).scanned_at for each in others)
    fake.close()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([b"poison"], ("unscannable", "more in it than clamd scans in 0.5 s", True)),
        ([b"poison", EICAR[-30:]], ("waiting", "clamd did not answer in time (try 1)", False)),
    ],
    ids=["clamd hangs over the file", "clamd hangs over all"],
)
def test_what_clamd_is_not_done_with_in_time_within_a_look_is_over_a_limit_unless_clamd_itself_hangs(
    uploads: Uploads,
    scanners: Any,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    words: list[bytes],
    found: tuple[str, str, bool],
) -> None:
    path = tmp_path_factory.mktemp("s") / "c"
    fake = Fake(str(scanners.clamd.socket), path, None, *words)
    monkeypatch.setenv("CLAMD_URL", f"unix://{path}")
    monkeypatch.setattr(looks, "CLAMD_SECONDS", 0.5)
    monkeypatch.setattr(scan, "CONTROL_SECONDS", 5)
    reread()
    attachment = uploads.add(pdf(b"poison"))

    uploads.sweep()

    record = uploads.record(attachment)
    assert (record.verdict, record.reason, record.sha256 is not None) == found
    assert record.claims == 0
    fake.close()


def test_the_tries_that_block_a_file_for_good_take_longer_than_a_fault_of_an_hour(uploads: Uploads) -> None:
    assert sum(delay(Kind.FAILED, tries) for tries in range(1, MOST_CLAIMS)) > 3600
    attachment = uploads.add(PNG)
    uploads.execute("INSERT INTO worker_scans (attachment_id, due_at) VALUES (:id, NOW(3))", id=attachment)
    queue, seconds = Queue(uploads.engine, "a" * 32), []
    for _ in range(MOST_CLAIMS):
        uploads.make_due()
        queue.claim_due(1, True)  # and the worker dies
        queue.renew([attachment])
        with uploads.engine.connect() as connection:
            seconds.append(
                connection.execute(text("SELECT TIMESTAMPDIFF(SECOND, NOW(), due_at) FROM worker_scans")).scalar_one()
            )
    assert seconds[0] <= LEASE_SECONDS
    assert sum(seconds) > 3600


def test_a_maintenance_page_and_an_empty_volume_cost_what_they_last(uploads: Uploads, server: Server) -> None:
    served, new, unmounted = (uploads.add(None, file_url=f"/assets/{name}") for name in "abc")
    server.answers["/assets/a"] = Answer(PNG, headers={"ETag": '"1"'})
    uploads.scan(served)
    for name in "ab":
        server.answers[f"/assets/{name}"] = Answer(status=302, headers={"Location": "/maintenance"})
    uploads.execute("UPDATE worker_scans SET due_at = NOW(3), forced = 1")
    for _ in range(40):
        uploads.make_due()
        uploads.sweep()

    assert uploads.flags(served) == (1, 1)
    for each in (new, unmounted):
        record = uploads.record(each)
        assert (record.verdict, uploads.flags(each), record.due_at is None, record.lane) == ("unverified", (0, 0), False, 1)

    server.answers |= {f"/assets/{name}": Answer(PNG, headers={"ETag": '"1"'}) for name in "abc"}
    done = CliRunner().invoke(cli, ["attachments", "rescan", "--verdict", "unverified"])
    assert done.exit_code == 0
    uploads.sweep()
    assert [uploads.flags(each) for each in (served, new, unmounted)] == [(1, 1)] * 3


def test_deleted_rows_do_not_end_the_walk_for_new_signatures(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    first = [uploads.add(bytes([number])) for number in range(3)]
    gone = [uploads.add(bytes([99, number])) for number in range(6)]
    uploads.sweep()
    uploads.execute("DELETE FROM message_attachments WHERE id >= :id", id=gone[0])
    monkeypatch.setattr(find_unqueued, "RESCAN_PAGE", 3)

    found = 0
    for _ in range(4):
        uploads.execute("UPDATE worker_scan_walks SET moved_at = moved_at - INTERVAL 1 MINUTE")
        found += find_unqueued.schedule_rescans(uploads.engine, Version("1.4.6", 99_999), days=7, per_minute=60)

    assert found == len(first)


def test_a_quarantine_that_fails_again_and_again_counts_one_infected_file(
    uploads: Uploads, vault: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "_connect", lambda: redis)
    counters.flush(at_once=True)
    redis.flushdb()
    vault.rmdir()
    uploads.add(EICAR)
    for _ in range(4):
        uploads.sweep()
        uploads.make_due()

    counters.flush(at_once=True)
    assert counters.read(redis, (SCANS,))[("scans", "infected")] == 1


def test_two_versions_behind_one_address_are_tested_once_each(uploads: Uploads) -> None:
    assert uploads
    scannable.forget()
    clamd = run._process().clamd
    first, second = (scannable.fitness(clamd, Version("1.4.3", version), 1024) for version in (27_000, 27_001))
    assert scannable.fitness(clamd, Version("1.4.3", 27_000), 1024) is first
    assert scannable.fitness(clamd, Version("1.4.3", 27_001), 1024) is second


CHUNKED = {"Transfer-Encoding": "chunked", "Content-Length": ""}


@pytest.mark.parametrize("more", [1, -1])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_of_another_length_than_its_row_s_has_time_to_arrive(
    uploads: Uploads, server: Server, more: int, chunked: bool
) -> None:
    in_chunks = Answer(b"%x\r\n%b\r\n0\r\n\r\n" % (len(PNG), PNG), headers=CHUNKED)
    server.answers["/assets/1"] = in_chunks if chunked else Answer(PNG)
    attachment = uploads.add(None, file_url="/assets/1", file_size=len(PNG) + more)
    for _ in range(2):
        uploads.scan(attachment)
        assert (uploads.flags(attachment), uploads.record(attachment).verdict) == ((0, 1), "waiting")
        assert f"has {len(PNG)} bytes, and {len(PNG) + more} by" in uploads.record(attachment).reason
        uploads.make_due()
    uploads.scan(attachment)
    assert uploads.flags(attachment) == (1, 1)


def test_an_empty_answer_is_no_file_that_has_a_length(uploads: Uploads, server: Server) -> None:
    server.answers["/assets/1"] = Answer(b"")
    attachment = uploads.add(None, file_url="/assets/1", file_size=len(PNG))
    for _ in range(4):
        uploads.scan(attachment)
    assert (uploads.flags(attachment), uploads.record(attachment).verdict) == ((0, 1), "waiting")


@pytest.mark.parametrize(
    ("kind", "tries", "flags"), [(Kind.STORAGE, 19, None), (Kind.STORAGE, 20, (False, False)), (Kind.CLAMD, 999, None)]
)
def test_an_outage_of_a_week_is_no_outage_for_what_is_from_before_the_workers(
    kind: Kind, tries: int, flags: tuple[bool, bool] | None
) -> None:
    attachment = Attachment(1, "/files/1", historic=True, attempts=tries - 1)
    assert settle(attachment, Finding(kind, "why"), quarantine=False).flags == flags


def test_what_was_served_before_the_workers_is_not_blocked_by_an_outage_but_by_its_absence(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAMD_URL", "unix:///nowhere")
    reread()
    old = uploads.add(PNG, scanned_for_virus=1, is_safe=1)
    find_unqueued.history(uploads.engine)
    new = uploads.add(PNG)
    for attachment in (old, new):
        for _ in range(9):
            uploads.scan(attachment)
            uploads.make_due()
    assert (uploads.flags(old), uploads.flags(new)) == ((1, 1), (0, 0))

    monkeypatch.undo()
    reread()
    uploads.path(old).unlink()
    uploads.scan(old)
    assert uploads.flags(old) == (0, 0)
