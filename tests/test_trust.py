"""Which authorities are trusted: the system's and those of SSL_CERT_FILE, by every HTTPS client alike, and no others."""

import asyncio
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE

import pytest
import requests

import settings
from devstack.emulators.certificates import ensure_certificates
from devstack.folder import PROJECT
from settings import get_settings
from tasks import s3
from tasks.attachments.storage.base import StorageUnavailableError
from tasks.attachments.storage.http import HttpStorage
from tasks.notifications.providers.transport import NoAnswerError, Transport

AUTHORITIES = ("system", "company", "stranger")


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}" if self.command != "HEAD" else b"")

    do_POST = do_HEAD = do_GET  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ensure_certificates(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The URL of a server for each authority."""
    with ExitStack() as running:
        for name in AUTHORITIES:
            (tmp_path / name).mkdir()
        yield {name: running.enter_context(serving(tmp_path / name)) for name in AUTHORITIES}


def push(url: str, ping_after: float | None) -> None:
    async def post() -> None:
        transport = Transport(in_flight=1, seconds=10, ping_after=ping_after)
        try:
            await transport.post(url, {}, b"")
        finally:
            await transport.close()

    asyncio.run(post())


def attachment(url: str) -> None:
    with HttpStorage(url, token=None, private_network=True, connections=1).open("/file"):
        pass


def bucket(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "ENDPOINT_URL_S3": url,
            "ACCESS_KEY_ID": "a",
            "SECRET_ACCESS_KEY": "b",
            "DEFAULT_REGION": "c",
        }.items():
            patch.setenv(f"AWS_{name}", value)
        with s3.asking():
            s3.make_client().head_bucket(Bucket="bucket")


CLIENTS: dict[str, tuple[Callable[[str], object], type[Exception]]] = {
    "push": (lambda url: push(url, 0), NoAnswerError),
    "push by pyreqwest": (lambda url: push(url, None), NoAnswerError),
    "attachments": (attachment, StorageUnavailableError),
    "S3": (bucket, s3.S3Error),
    "requests": (lambda url: requests.get(url, timeout=10), requests.exceptions.SSLError),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_trusts_the_system_and_the_company_and_nobody_else(
    servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(variable, "")  # to be put back
        monkeypatch.delenv(variable)
    monkeypatch.setattr(settings, "SYSTEM_AUTHORITIES", (str(tmp_path / "system" / "ca.pem"),))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "company" / "ca.pem"))
    monkeypatch.setenv("DATABASE_URL", "mysql+pymysql://u:p@db.example/chat")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://redis.example")
    get_settings.cache_clear()
    get_settings()
    get_settings.cache_clear()
    get_settings()  # a child's, whose variable names what its parent merged
    get_settings.cache_clear()

    ask, refused = CLIENTS[name]
    ask(servers["system"])
    ask(servers["company"])
    with pytest.raises(refused):
        ask(servers["stranger"])


def test_the_merged_authorities_are_the_childrens_too_and_leave_no_file(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    required = {"DATABASE_URL": "mysql+pymysql://u:p@db.example/chat", "CELERY_BROKER_URL": "redis://redis.example"}
    environment = {**os.environ, **required, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    child = "import os, settings; settings.get_settings(); print(os.environ['SSL_CERT_FILE'], flush=True)"
    program = f"{child}; import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=PROJECT, stdout=PIPE, text=True, timeout=180)
    merged, same = done.stdout.splitlines()
    assert merged == same
    assert not Path(merged).exists()
