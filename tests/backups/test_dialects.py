"""Buckets on servers that do not know all of S3's own dialect: the doctor says what is lacking, and a setting does without."""

import http.client
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from devstack.stack import Stack
from tasks.backups.errors import BackupError
from tasks.backups.run import Backups
from tasks.backups.ship import Bucket
from tasks.s3 import asking
from tests.backups.conftest import FEW_ITERATIONS, quiet

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
REFUSAL = b"<Error><Code>NotImplemented</Code><Message>A header you provided is not implemented</Message></Error>"


@pytest.fixture
def plain_server(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The stack's S3 behind a door that refuses these words, in a header's name or in the address."""
    refused: set[str] = set()

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_anything(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = " ".join([self.command, self.path, *self.headers]).lower()
            if any(word in said for word in refused):
                self.answer(501, {}, b"" if self.command == "HEAD" else REFUSAL)
                return
            server = http.client.HTTPConnection("127.0.0.1", stack.s3.port, timeout=30)
            server.request(self.command, self.path, body, dict(self.headers))
            response = server.getresponse()
            headers = {name: value for name, value in response.headers.items() if name.lower() not in {"connection", "server"}}
            self.answer(response.status, headers, response.read())
            server.close()

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                if name.lower() != "transfer-encoding":
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_anything  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        yield refused
        server.shutdown()


@pytest.mark.parametrize("lacking", ["if-none-match", "x-amz-checksum-"])
def test_a_server_that_lacks_it_takes_archives_once_the_setting_says_so(
    backups: Backups, plain_server: set[str], lacking: str
) -> None:
    plain_server.add(lacking)
    backups.daily(quiet)
    made = backups.weekly(quiet)
    with pytest.raises(BackupError, match="if it knows no If-None-Match or checksums, set BACKUP_S3_PLAIN=true"):
        backups.monthly(quiet)
    plain = Backups(backups.engine, backups.settings.model_copy(update={"backup_s3_plain": True}), FEW_ITERATIONS)
    assert plain.monthly(quiet).artefact == made.artefact
    assert plain.drill(quiet, tier="monthly").rows


def test_the_doctor_tries_an_upload_and_leaves_nothing(backups: Backups, plain_server: set[str]) -> None:
    bucket = Bucket(backups.settings)
    bucket.try_upload()
    plain_server.add("x-amz-checksum-sha256")
    with pytest.raises(BackupError, match=r"failed while uploading a part: .*BACKUP_S3_PLAIN=true"):
        bucket.try_upload()
    plain_server.clear()
    plain_server.add("get /backups/")
    with pytest.raises(BackupError, match="lists no parts: an upload that is cut off begins anew"):
        bucket.try_upload()
    plain_server.clear()
    assert bucket.shipped() == []
    with asking():
        assert "Uploads" not in bucket._s3.list_multipart_uploads(Bucket=bucket.bucket)
