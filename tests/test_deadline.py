"""Nothing that is asked of a server outlasts its deadline, at whatever point of its answer the server begins to trickle."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import boto3
import pytest

from tasks import s3, shutdown
from tasks.attachments.clamd import Clamd, ClamdUnavailableError
from tasks.attachments.storage.base import StorageUnavailableError
from tasks.attachments.storage.http import HttpStorage
from tasks.attachments.storage.s3 import S3Storage
from tasks.deadline import Deadline, OverdueError
from tests.attachments.server import Answer, serving
from tests.trickle import ENDLESS, trickling

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "devstack")


@pytest.fixture
def stopping() -> Iterator[None]:
    yield
    shutdown.forget()


def read_all(storage: HttpStorage | S3Storage) -> None:
    with storage.open("/files/1") as content:
        for _ in content.pieces:
            pass


@pytest.mark.parametrize("what", ENDLESS)
def test_an_upload_behind_http_is_given_up(what: str) -> None:
    with trickling(what) as server:
        storage = HttpStorage(
            f"http://127.0.0.1:{server.address[1]}", token=None, private_network=True, connections=1, transfer_seconds=1
        )
        with pytest.raises(StorageUnavailableError, match="did not arrive whole: it took longer than 1 s"):
            read_all(storage)
        assert server.left.wait(30)


@pytest.mark.parametrize("what", ENDLESS)
def test_an_upload_in_s3_is_given_up(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with trickling(what) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.address[1]}")
        storage = S3Storage("s3://uploads", connections=1, transfer_seconds=1)
        with pytest.raises(StorageUnavailableError, match=r"(it took longer than 1 s|gave no usable answer)"):
            read_all(storage)
        assert server.left.wait(30)


@pytest.mark.parametrize("what", ["status line", "100 Continue", "a header", "chunk size", "tiny chunks", "body"])
def test_an_answer_of_s3_is_given_up(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 1.0)
    with trickling(what) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.address[1]}")
        client = s3.make_client()
        with pytest.raises(s3.S3Error, match="no whole answer from S3: it took longer than 1 s"), s3.asking():
            client.list_objects_v2(Bucket="backups")
        assert server.left.wait(30)


@pytest.mark.parametrize("what", ["status line", "body"])
def test_whoever_hands_out_credentials_is_given_up(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the metadata address of an instance and the agent of a container do."""
    monkeypatch.setattr(s3, "CREDENTIALS_SECONDS", 1.0)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which keeps those that it found
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with trickling(what) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.address[1]}/credentials")
        with pytest.raises(s3.S3Error, match="no whole answer from S3: it took longer than 1 s"):
            s3.make_client()
        assert server.left.wait(30)


@pytest.mark.parametrize("status", [200, 403])
def test_an_answer_of_s3_that_would_swell_when_it_is_read_is_refused(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        server.answers["/backups?list-type=2&encoding-type=url"] = Answer(
            b"<ListBucketResult>" + b"<a>" * s3.MOST_TAGS, status=status
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        client = s3.make_client()
        with pytest.raises(s3.S3Error, match="or 100,000 tags"), s3.asking():
            client.list_objects_v2(Bucket="backups")


def test_a_body_that_s3_lets_wait_for_its_100_continue_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 1.0)
    with trickling((b"HTTP/1.1 100 Continue\r\n", b"x")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.address[1]}")
        client = s3.make_client()
        with pytest.raises(s3.S3Error, match="no whole answer from S3: it took longer than 1 s"), s3.asking():
            client.put_object(Bucket="backups", Key="a", Body=b"x" * 2_000_000)


@pytest.mark.timeout(20)
def test_a_connection_that_ends_within_a_100_continue_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a `read` is sent with Expect: then it is botocore that reads the interim answer."""
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 1.0)

    def serve() -> None:
        with suppress(OSError):
            while True:
                with server.accept()[0] as connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 100 Continue\r\nX: y")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.getsockname()[1]}")
        client = s3.make_client()
        with pytest.raises(s3.S3Error), s3.asking():
            client.put_object(Bucket="backups", Key="a", Body=io.BytesIO(b"x"))


def test_the_time_follows_from_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "REQUEST_SECONDS", 0.1)
    with serving() as server:
        server.answers["/uploads/files/1"] = Answer(
            bytes(100),
            piece=10,
            pause=0.1,
            headers={"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"},
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        client = s3.make_client()
        with s3.asking(30 * s3.LOWEST_RATE):
            answer = client.get_object(Bucket="uploads", Key="files/1")
            assert answer["Body"].read() == bytes(100)


def test_a_worker_that_stops_waits_for_no_server(stopping: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.deadline.STOP_SECONDS", 0.0)
    with trickling("body") as server:
        storage = HttpStorage(
            f"http://127.0.0.1:{server.address[1]}", token=None, private_network=True, connections=1, transfer_seconds=3600
        )
        raised: list[BaseException] = []

        def read() -> None:
            try:
                read_all(storage)
            except StorageUnavailableError as error:
                raised.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert server.begun.wait(30)
        shutdown.request_stop()
        reader.join()
    assert [str(error) for error in raised] == ["the content did not arrive whole: the worker is stopping"]


def test_a_worker_that_stops_does_not_wait_for_clamd(
    stopping: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr("tasks.deadline.STOP_SECONDS", 0.0)
    path = tmp_path_factory.mktemp("clamd") / "clamd.ctl"
    with trickling((b"stream: O", b""), path=str(path)):
        shutdown.request_stop()
        with pytest.raises(ClamdUnavailableError, match="the worker is stopping"):
            scan_nothing(Clamd(f"unix://{path}", scan_seconds=3600))


def scan_nothing(clamd: Clamd) -> bytes:
    with clamd.stream() as stream:
        return stream.finish()


def test_a_connection_that_serves_another_request_by_now_is_not_cut() -> None:
    read = []

    def two_at_once(storage: HttpStorage) -> None:
        with storage.open("/assets/1") as one:
            read.append(len(next(one.pieces)))  # whole, and its connection is free again
            storage.transfer_seconds = 30
            with storage.open("/assets/2") as two:
                read.append(len(next(two.pieces)))

    with serving() as server:
        server.answers = {"/assets/1": Answer(b"one"), "/assets/2": Answer(bytes(40), piece=1, pause=0.05)}
        storage = HttpStorage(server.url, token=None, private_network=True, connections=1, transfer_seconds=1)
        with pytest.raises(StorageUnavailableError, match="it took longer than 1 s"):
            two_at_once(storage)
    assert read == [3, 40]


def test_what_a_library_took_for_the_end_is_not_taken_for_the_whole() -> None:
    def parse_what_came() -> None:
        with Deadline(0) as within:
            while not within.passed:
                threading.Event().wait(0.05)
            raise KeyError("a header that never came")

    with pytest.raises(OverdueError, match="it took longer than 0 s"):
        parse_what_came()
