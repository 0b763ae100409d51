"""What Celery and Flower show of the connection to Redis: everything that helps, and no password, whatever the scheme."""

import base64
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devstack.emulators.certificates import ensure_certificates
from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.programs import find
from tests.processes import Start, wait_until

PASSWORD = "s3cret-of-redis"
SENTINEL_PASSWORD = "s3cret-of-sentinels"
LOGIN = "operator:long-enough-for-all"
PARTING = "--- of the next command ---"
CALL_EACH = f"""
import sys
from celery.bin.celery import celery
for command in sys.argv[1:]:
    print({PARTING!r}, flush=True)
    if status := celery(["-A", "workers.app", *command.split()], standalone_mode=False):
        sys.exit(status)
"""


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """CELERY_BROKER_URL by scheme, of one Redis that speaks plainly and over TLS, with a sentinel beside it."""
    folder, plain, encrypted, sentinel = tmp_path_factory.mktemp("redis"), free_port(), free_port(), free_port()
    ensure_certificates(folder)
    (folder / "redis.conf").write_text(
        f"port {plain}\nbind 127.0.0.1\ndir {folder}\nrequirepass {PASSWORD}\nsave ''\ntls-port {encrypted}\n"
        "tls-auth-clients no\n"
        f"tls-cert-file {folder}/server.pem\ntls-key-file {folder}/server-key.pem\ntls-ca-cert-file {folder}/ca.pem\n"
    )
    (folder / "sentinel.conf").write_text(
        f"port {sentinel}\nbind 127.0.0.1\ndir {folder}\nrequirepass {SENTINEL_PASSWORD}\n"
        f"sentinel monitor mymaster 127.0.0.1 {plain} 1\nsentinel auth-pass mymaster {PASSWORD}\n"
    )
    with ExitStack() as running, (folder / "log").open("wb") as log:
        for arguments in (["redis.conf"], ["sentinel.conf", "--sentinel"]):
            process = subprocess.Popen([find("redis-server"), *arguments], cwd=folder, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.kill)
        wait_until(lambda: b"+monitor" in (folder / "log").read_bytes(), "the sentinel watched", 20)
        yield {
            "redis": f"redis://:{PASSWORD}@127.0.0.1:{plain}/0",
            "rediss": f"rediss://:{PASSWORD}@127.0.0.1:{encrypted}/0?ssl_ca_certs={folder}/ca.pem",
            "sentinel": f"sentinel://:{PASSWORD}@127.0.0.1:{sentinel};sentinel://:{PASSWORD}@127.0.0.1:{sentinel}/0",
        }


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel"])
def test_no_password_is_shown(brokers: dict[str, str], scheme: str, start: Start, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.touch(mode=0o600)
    users.write_text(f"{LOGIN}\n")
    own = {
        "CELERY_BROKER_URL": brokers[scheme],
        "REDIS_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        "FLOWER_DIR": str(tmp_path),
        "FLOWER_PORT": str(free_port()),
        "FLOWER_BASIC_AUTH_FILE": str(users),
    }
    worker = start("celery -A workers.app worker -Q notifications -n worker@test -c 1 --without-mingle", "worker", **own)
    start("celery -A workers.app flower", "flower", **own)
    worker.wait_ready()
    asked = "-d worker@test -t 20 --json"  # a busy worker takes longer than a second
    report, conf, stats = celery(own, "report", f"inspect conf {asked}", f"inspect stats {asked}")
    assert "redbeat_redis_options" in report
    assert "redbeat_redis_options" in conf
    assert '"broker"' in stats
    wait_until(lambda: bool(shown(own["FLOWER_PORT"])), "Flower's page showed the worker")
    page = shown(own["FLOWER_PORT"])
    assert "redbeat_redis_options" in page
    for name, text in {"report": report, "conf": conf, "stats": stats, "Flower": page}.items():
        assert "s3cret" not in text, name


def celery(environment: dict[str, str], *commands: str) -> list[str]:
    """Return what each command of Celery prints. One process calls them all: each would import for a second."""
    done = subprocess.run(
        [sys.executable, "-c", CALL_EACH, *commands],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(PARTING)[1:]


def shown(port: str) -> str:
    """Return Flower's page of the worker, nothing while it has none."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/worker/worker@test")
    request.add_header("Authorization", f"Basic {base64.b64encode(LOGIN.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""
