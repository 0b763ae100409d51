"""Which authorities are trusted: the system's and those of SSL_CERT_FILE, by every HTTPS client alike, and no others."""

import asyncio
import os
import signal
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
from tests.backups.test_cut_off import in_own_mounts
from tests.processes import Process

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


def test_the_merged_file_is_one_for_all_processes_and_is_made_anew_if_it_holds_anything_else(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    required = {"DATABASE_URL": "mysql+pymysql://u:p@db.example/chat", "CELERY_BROKER_URL": "redis://redis.example"}
    environment = {**os.environ, **required, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    program = "import os, settings; settings.get_settings(); print(os.environ['SSL_CERT_FILE'], flush=True)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"

    def run(*more: str) -> list[Path]:
        command = [sys.executable, "-c", "; ".join([program, *more])]
        done = subprocess.run(command, env=environment, cwd=PROJECT, stdout=PIPE, text=True, timeout=180, check=False)
        return [Path(line) for line in done.stdout.splitlines()]

    merged, childs = run(child, "os.kill(os.getpid(), 9)")
    assert childs == merged
    content = merged.read_bytes()
    assert content.endswith((tmp_path / "ca.pem").read_bytes())
    assert merged.stat().st_mode & 0o777 == 0o644  # for a child that is another user
    merged.write_bytes(b"-----BEGIN CERTIFICATE-----")
    assert run() == [merged]
    assert merged.read_bytes() == content
    merged.unlink()


def test_a_worker_that_sighup_restarts_trusts_what_it_did(environment: dict[str, str], tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    celery = str(Path(sys.executable).with_name("celery"))
    program = [celery, "-A", "workers.app", "worker", "-Q", "notifications", "-c", "1"]
    given = {**os.environ, **environment, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    worker = Process(program, given, tmp_path / "worker.log").start().wait_ready()
    try:
        worker.send(signal.SIGHUP)
        worker.wait_until(lambda: worker.said(" ready.", times=2), "it was ready again")
        assert worker.stop() == 0
    finally:
        worker.kill()


def test_a_full_disk_in_memory_ends_in_a_sentence_and_leaves_no_half_file() -> None:
    script = f"""mount -t tmpfs -o size=16k tmpfs /dev/shm || exit 99
{sys.executable} -c 'import settings; settings._in_shared_memory(bytes(100_000))' 2>&1 | tail -n 1; ls /dev/shm"""
    done = in_own_mounts(Path("/dev/shm"), script, {})
    assert "ConfigurationError: SSL_CERT_FILE cannot be merged with the system's authorities in /dev/shm" in done.stdout
    assert done.stdout.count("\n") == 1
