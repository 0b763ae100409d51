"""Archives reach the bucket whole, once, over nobody else's object, and go on where a cut connection stopped them."""

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from sqlalchemy import Engine, event, text

from db.engine import create_engine
from db.models import CHAT_TABLES
from devstack.stack import Stack
from tasks import shutdown
from tasks.backups import dump, folder, manifest, seal
from tasks.backups.errors import BackupError, StoppedError
from tasks.backups.folder import Backup
from tasks.backups.run import Backups
from tasks.backups.seal import PART_BYTES
from tasks.backups.ship import Bucket
from tests.backups.conftest import FEW_ITERATIONS, PASSPHRASE, checksums, quiet
from tests.trickle import trickling


@pytest.fixture
def bucket(stack: Stack) -> Any:
    """The bucket as another program sees it."""
    return boto3.resource("s3", endpoint_url=stack.s3.url).Bucket("backups")


def prefix(backups: Backups) -> str:
    return str(backups.settings.backup_s3_uri).removeprefix("s3://backups/") + "/"


def objects(backups: Backups, bucket: Any) -> list[Any]:
    """Return this test's objects, by name: an archive comes before its manifest."""
    return sorted(bucket.objects.filter(Prefix=prefix(backups)), key=lambda entry: str(entry.key))


def keys(backups: Backups, bucket: Any) -> list[str]:
    return [entry.key.removeprefix(prefix(backups)) for entry in objects(backups, bucket)]


def name_of_archive(backups: Backups) -> str:
    return folder.names(backups.folder, "weekly")[0]


def month(backups: Backups) -> str:
    with backups.engine.connect() as connection:
        return str(connection.execute(text("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m')")).scalar_one())


def test_an_archive_and_its_manifest_lie_under_their_month(whole: Backups, bucket: Any) -> None:
    archive = name_of_archive(whole)
    assert whole.monthly(quiet).artefact == archive
    assert keys(whole, bucket) == [f"{month(whole)}/{archive}", f"{month(whole)}/{archive}.manifest"]


def test_a_month_that_has_one_is_not_due(whole: Backups) -> None:
    assert whole.monthly(quiet).artefact
    assert not whole.monthly(quiet).artefact


def test_shipping_again_sends_nothing(whole: Backups, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = name_of_archive(whole)
    whole.monthly(quiet)
    with wire(stack, 10**9, monkeypatch) as counting:
        assert whole.monthly(quiet, force=True).artefact == archive
    assert counting.sent < (whole.folder / archive).stat().st_size


@pytest.mark.parametrize("suffix", ["", manifest.SUFFIX])
def test_another_object_of_that_name_is_left_alone(whole: Backups, bucket: Any, suffix: str) -> None:
    archive = name_of_archive(whole)
    key = f"{prefix(whole)}{month(whole)}/{archive}{suffix}"
    bucket.put_object(Key=key, Body=b"someone else's")
    with pytest.raises(BackupError, match=r"is another (object|manifest) than .*; it was left alone"):
        whole.monthly(quiet, force=True)
    assert bucket.Object(key).get()["Body"].read() == b"someone else's"


def test_encryption_and_storage_class_are_as_set(whole: Backups, bucket: Any) -> None:
    settings = whole.settings.model_copy(update={"backup_s3_sse": "AES256", "backup_s3_storage_class": "STANDARD_IA"})
    archive = name_of_archive(whole)
    replace(whole, settings=settings).monthly(quiet)
    head = objects(whole, bucket)[0].Object()
    assert (head.server_side_encryption, head.storage_class) == ("AES256", "STANDARD_IA")
    assert head.metadata["sha256"] == hashlib.sha256((whole.folder / archive).read_bytes()).hexdigest()


def test_an_archive_in_the_bucket_restores_to_identical_checksums(backups: Backups, other: Engine) -> None:
    backups.daily(quiet)
    archive = backups.weekly(quiet).artefact
    backups.monthly(quiet)
    for path in [*backups.folder.iterdir()]:
        path.unlink()
    backups.restore(backups.find(f"{month(backups)}/{archive}"), other, CHAT_TABLES, quiet, push=True)
    assert checksums(other) == checksums(backups.engine)


def test_an_object_that_was_changed_in_the_bucket_is_not_restored(whole: Backups, other: Engine, bucket: Any) -> None:
    archive = name_of_archive(whole)
    whole.monthly(quiet)
    entry = objects(whole, bucket)[0]
    body = bytearray(entry.get()["Body"].read())
    body[1000] ^= 1
    entry.put(Body=bytes(body))
    (whole.folder / archive).unlink()
    (whole.folder / (archive + manifest.SUFFIX)).unlink()
    with pytest.raises(BackupError, match="SHA-256 is not that of its manifest"):
        whole.restore(whole.find(archive), other, CHAT_TABLES, quiet)


def big_archive(backups: Backups) -> Backup:
    """Make an archive of three parts: what is in it does not matter to the bucket."""
    return archive_of(backups, dump.today(backups.engine), random.Random(1).randbytes(2 * PART_BYTES + 1_000_000))


def archive_of(backups: Backups, day: date, content: bytes) -> Backup:
    """Put an archive of that day into the folder, signed."""
    name = f"backup_chat_week_{day:%Y%m%d}.tar.enc"
    (backups.folder / name).write_bytes(content)
    sha256, parts_sha256 = seal.digests(content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES))
    made = manifest.Manifest(
        kind="weekly",
        name=name,
        created_at=f"{day}T03:30:00Z",
        bytes=len(content),
        sha256=sha256,
        parts_sha256=parts_sha256,
        plain_bytes=0,
        milliseconds=0,
    )
    (backups.folder / (name + manifest.SUFFIX)).write_bytes(manifest.compose(made, PASSPHRASE, FEW_ITERATIONS))
    return folder.load(backups.folder, name)


class Wire:
    """A relay to the S3 endpoint that is cut once after `limit` bytes in one direction: for good, or that connection only."""

    def __init__(self, port: int, limit: int, *, down: bool, for_good: bool) -> None:
        self.sent = 0
        self._port = port
        self._limit = limit
        self._down = down
        self._for_good = for_good
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            for source, target, down in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._relay, args=(source, target, down == self._down), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.sent += len(data) if counted else 0
                if counted and self.sent > self._limit:
                    self._limit = 10**12
                    if self._for_good:
                        self.close()
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@contextmanager
def wire(
    stack: Stack, limit: int, monkeypatch: pytest.MonkeyPatch, *, down: bool = False, for_good: bool = True
) -> Iterator[Wire]:
    """Have what is opened inside the block reach S3 over a wire, with no second try by the library."""
    relay = Wire(int(urlsplit(stack.s3.url).port or 0), limit, down=down, for_good=for_good)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", relay.url)
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        yield relay
    relay.close()


def test_an_upload_that_was_cut_goes_on_with_the_parts_that_are_missing(
    backups: Backups, bucket: Any, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = big_archive(backups)
    with (
        wire(stack, PART_BYTES * 3 // 2, monkeypatch),
        pytest.raises(BackupError, match="uploading part 2 of backup_chat_week"),
    ):
        backups.monthly(quiet)
    assert keys(backups, bucket) == []

    with wire(stack, 10**9, monkeypatch) as whole:
        assert backups.monthly(quiet).artefact == archive.name
    assert whole.sent < archive.signed.manifest.bytes - PART_BYTES + 100_000
    assert len(keys(backups, bucket)) == 2
    entry = objects(backups, bucket)[0]
    assert hashlib.sha256(entry.get()["Body"].read()).hexdigest() == archive.signed.manifest.sha256
    assert not list(backups.folder.glob("*.upload"))


def test_a_download_that_was_cut_goes_on_where_it_broke(
    backups: Backups, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = big_archive(backups)
    backups.monthly(quiet)
    with wire(stack, PART_BYTES, monkeypatch, down=True, for_good=False) as relay:
        bucket = Bucket(backups.settings)
        fetched = bucket.fetch(bucket.shipped()[-1], [PASSPHRASE], tmp_path, quiet)
    assert fetched.path.read_bytes() == archive.path.read_bytes()
    assert PART_BYTES < relay.sent < archive.signed.manifest.bytes + PART_BYTES


def test_a_download_that_was_cut_for_good_leaves_nothing(
    backups: Backups, stack: Stack, monkeypatch: pytest.MonkeyPatch, other: Engine
) -> None:
    archive = big_archive(backups)
    backups.monthly(quiet)
    for path in [archive.path, archive.path.with_name(archive.name + manifest.SUFFIX)]:
        path.unlink()
    with wire(stack, PART_BYTES, monkeypatch, down=True), pytest.raises(BackupError, match="failed while fetching"):
        backups.restore(backups.find(archive.name), other, CHAT_TABLES, quiet, push=True)
    assert [path.name for path in backups.folder.iterdir()] == [".lock"]


def test_no_bucket_is_a_sentence(whole: Backups) -> None:
    settings = whole.settings.model_copy(update={"backup_s3_uri": "s3://no-such-bucket/chat"})
    with pytest.raises(BackupError, match=r"S3 \(s3://no-such-bucket/chat\) failed while listing it: .*does not exist"):
        replace(whole, settings=settings).monthly(quiet)


def test_an_archive_too_old_for_the_month_is_not_shipped(backups: Backups, bucket: Any) -> None:
    archive_of(backups, dump.today(backups.engine) - timedelta(days=40), b"old")
    with pytest.raises(BackupError, match=r"too old to count for .*; first run: chat-workers backups create weekly"):
        backups.monthly(quiet)
    assert keys(backups, bucket) == []


@pytest.mark.parametrize(("archive_days_ago", "month"), [(0, "2027-01"), (6, "2026-12")])
def test_on_the_first_before_the_hour_an_archive_counts_for_the_month_that_it_can_count_for(
    backups: Backups, bucket: Any, archive_days_ago: int, month: str
) -> None:
    """A host that is set up in that night has an archive of that day alone: it was called too old for the month before."""

    def set_clock(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET timestamp = {int(datetime(2027, 1, 1, 0, 30, tzinfo=UTC).timestamp())}")

    engine = create_engine(backups.engine.url.render_as_string(hide_password=False))
    event.listen(engine, "connect", set_clock)
    that_night = replace(backups, engine=engine)
    archive_of(that_night, dump.today(engine) - timedelta(days=archive_days_ago), b"new")
    that_night.monthly(quiet)
    engine.dispose()
    assert {key.partition("/")[0] for key in keys(backups, bucket)} == {month}


@pytest.mark.parametrize("attack", ["junk", "a genuine one of long ago"])
def test_what_is_not_genuine_keeps_no_month_from_its_archive(whole: Backups, bucket: Any, attack: str) -> None:
    archive, this = name_of_archive(whole), month(whole)
    old = archive_of(whole, dump.today(whole.engine) - timedelta(days=40), b"old")
    text = old.path.with_name(old.name + manifest.SUFFIX).read_bytes()
    name = old.name if attack == "a genuine one of long ago" else archive.replace(".tar", "_000000.tar")
    for suffix, body in (("", b"old"), (manifest.SUFFIX, text)):
        bucket.put_object(Key=f"{prefix(whole)}{this}/{name}{suffix}", Body=body)
    run = whole.monthly(quiet)
    assert run.artefact == archive
    assert f"{this}/{archive}" in keys(whole, bucket)
    assert not whole.monthly(quiet).artefact


def test_other_bytes_in_the_place_of_this_months_archive_are_noticed(whole: Backups, bucket: Any) -> None:
    whole.monthly(quiet)
    entry = objects(whole, bucket)[0]
    content = entry.get()["Body"].read()
    entry.put(Body=content[::-1], Metadata={"sha256": hashlib.sha256(content).hexdigest()}, ChecksumAlgorithm="SHA256")
    with pytest.raises(BackupError, match="is another object than the archive of that name"):
        whole.monthly(quiet)


def test_what_counts_as_nothing_is_in_the_result_of_each_run(whole: Backups, bucket: Any) -> None:
    archive = whole.folder / name_of_archive(whole)
    for key in ("2098-01", "2099-12"):
        for path in (archive, archive.with_name(archive.name + manifest.SUFFIX)):
            bucket.put_object(Key=f"{prefix(whole)}{key}/{path.name}", Body=path.read_bytes())
    sentences = [f"{key}/{archive.name} is dated after today, so it counts as nothing" for key in ("2098-01", "2099-12")]
    assert [whole.monthly(quiet).ignored for _ in range(2)] == [sentences, sentences]
    assert whole.prune(quiet, delete=False)["monthly"].ignored == sentences
    assert whole.drill(quiet, tier="monthly").artefact.startswith("backup_chat_2")


def test_a_drill_of_the_bucket_reads_an_older_archive_too(whole: Backups, bucket: Any) -> None:
    old = archive_of(whole, dump.today(whole.engine) - timedelta(days=40), b"old")
    Bucket(whole.settings).ship(old, f"{old.day:%Y-%m}", quiet)
    whole.monthly(quiet)
    whole.drill(quiet, tier="monthly")
    bucket.put_object(
        Key=f"{prefix(whole)}{old.day:%Y-%m}/{old.name}", Body=b"bad", Metadata={"sha256": old.signed.manifest.sha256}
    )
    with pytest.raises(BackupError, match=f"{old.name} was changed after it was made"):
        whole.drill(quiet, tier="monthly")


def test_a_drill_says_which_archives_are_gone_from_the_bucket_though_they_should_be_kept(whole: Backups, bucket: Any) -> None:
    """Whoever has stolen the bucket's credentials leaves the newest alone. What rotation has deleted is not missed."""
    today = dump.today(whole.engine)
    old = [archive_of(whole, today - timedelta(days=days), b"old %d" % days).name for days in (460, 120, 80, 40)]
    recorded = text(
        "INSERT INTO worker_backup_runs (job, tier, outcome, artefact, milliseconds) VALUES ('monthly', '', :o, :n, 1)"
    )
    with whole.engine.begin() as connection:
        connection.execute(recorded, [*({"o": "done", "n": name} for name in [*old, "no archive"]), {"o": "failed", "n": "x"}])
    for name in old[1:]:
        day = folder.day_of(name)
        Bucket(whole.settings).ship(folder.load(whole.folder, name), f"{day:%Y-%m}", quiet)
    kept = replace(whole, settings=whole.settings.model_copy(update={"backup_keep_monthly": 4}))
    kept.monthly(quiet)
    kept.drill(quiet, tier="monthly")

    for entry in objects(kept, bucket):
        if name_of_archive(kept) not in entry.key and folder.names(kept.folder, "weekly")[-1] not in entry.key:
            entry.delete()
    with pytest.raises(
        BackupError, match=f"^not in {kept.settings.backup_s3_uri} as.*: {', '.join(f'monthly {name}' for name in old[1:])}$"
    ):
        kept.drill(quiet, tier="monthly")
    with kept.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM worker_backup_runs WHERE job = 'monthly' AND artefact <= '{old[-1]}'"))
    kept.drill(quiet, tier="monthly")


def test_a_drill_of_the_bucket_proves_the_newest_that_is_genuine_and_misses_one_of_ours_that_is_not(
    whole: Backups, bucket: Any
) -> None:
    shipping = replace(whole, settings=whole.settings.model_copy(update={"backup_s3_ship": "weekly"}))
    shipping.monthly(quiet)
    shipping.ship("weekly", quiet)
    junk = f"weekly/backup_chat_week_{dump.today(whole.engine):%Y%m%d}_235959.tar.enc"
    for suffix in ("", manifest.SUFFIX):
        bucket.put_object(Key=f"{prefix(whole)}{junk}{suffix}", Body=b"junk")
    run = shipping.drill(quiet, tier="monthly")
    assert run.rows
    assert [sentence.partition(" counts")[0] for sentence in run.ignored] == [junk]
    name = name_of_archive(whole)
    bucket.put_object(Key=f"{prefix(whole)}weekly/{name}{manifest.SUFFIX}", Body=b"junk")
    with pytest.raises(BackupError, match=f"^not in {whole.settings.backup_s3_uri} as shipped.*: weekly {name}$"):
        shipping.drill(quiet, tier="monthly")
    bucket.put_object(Key=f"{prefix(whole)}{month(whole)}/{name}{manifest.SUFFIX}", Body=b"junk")
    with pytest.raises(BackupError, match=r"^there is no monthly backup in s3://.* to drill; weekly/.* counts as nothing: "):
        shipping.drill(quiet, tier="monthly")


class EndlessLists(BaseHTTPRequestHandler):
    """A bucket that has a further page for whoever asks: of parts, or of objects, as many in each as `objects` says."""

    protocol_version = "HTTP/1.1"
    asked = 0
    objects = 0

    def do_GET(self) -> None:
        first = type(self).asked * 1000
        type(self).asked += 1
        listed = "".join(
            f"<Part><PartNumber>{first + number}</PartNumber><ETag>x</ETag><Size>1</Size></Part>" for number in range(1000)
        )
        if "uploadId" not in self.path:
            listed = "<Contents><Key>2026-11/x</Key><Size>1</Size></Contents>" * self.objects
        more = "<IsTruncated>true</IsTruncated>" + "".join(
            f"<{name}>{first + 1000}</{name}>" for name in ("NextPartNumberMarker", "NextContinuationToken")
        )
        body = f"<Result>{more}{listed}</Result>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[EndlessLists]]:
    """Such a bucket in the place of the stack's."""
    EndlessLists.asked = EndlessLists.objects = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), EndlessLists) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        yield EndlessLists
        server.shutdown()


def test_a_bucket_whose_parts_have_no_end_is_asked_for_as_many_as_an_upload_has(
    backups: Backups, endless: type[EndlessLists]
) -> None:
    arrived = Bucket(backups.settings)._arrived("2026-11/archive", "upload")
    assert (len(arrived or ()), endless.asked) == (10_000, 10)


@pytest.mark.parametrize(("objects", "pages"), [(0, 31), (1000, 31), (10_000, 4)])
def test_a_bucket_whose_listing_has_no_end_is_read_up_to_so_many_objects_however_many_it_has_in_a_page(
    backups: Backups, endless: type[EndlessLists], monkeypatch: pytest.MonkeyPatch, objects: int, pages: int
) -> None:
    monkeypatch.setattr("tasks.backups.ship.MOST_OBJECTS", 30_000)
    endless.objects = objects
    with pytest.raises(BackupError, match="holds more than 30,000 objects"):
        Bucket(backups.settings).shipped()
    assert endless.asked == pages


def test_a_worker_that_stops_leaves_a_bucket_that_trickles(backups: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.deadline.STOP_SECONDS", 0.0)
    with trickling("body") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.address[1]}")
        bucket = Bucket(backups.settings)
        shutdown.request_stop()
        try:
            with pytest.raises(StoppedError, match="the worker is stopping while listing it"):
                bucket.shipped()
        finally:
            shutdown.forget()
