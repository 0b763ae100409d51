"""What docs/api.md says of events: each type, and a receiver in Node that runs as it is printed."""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from sqlalchemy import Engine

from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.programs import ensure
from settings import get_settings
from tasks import outbox
from tasks.events.task import deliver
from tests.events.receiver import SECRETS, Receiver
from tests.processes import PLAIN, Process, wait_until

PAGE = (PROJECT / "docs/api.md").read_text()


def test_each_type_has_a_row() -> None:
    section = PAGE.partition("## Events")[2].partition("\n## ")[0]
    told = {name for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`([a-z.]+)`", cell)}
    assert told - {"type"} == {name for literal in get_args(outbox.Type) for name in get_args(literal)}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    ensure(["tests"])
    example = re.search(r"<!-- tested: receiver -->\n```js\n(.*?)```", PAGE, re.DOTALL)
    assert example
    (tmp_path / "receiver.mjs").write_text(example[1])
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "EVENTS_SECRET": f"whsec_{SECRETS[1]}"}
    process = Process(["node", "receiver.mjs"], environment, tmp_path / "node.log", folder=tmp_path).start()
    yield process, f"http://127.0.0.1:{port}"
    process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.post(url, content=b"{}", timeout=5, verify=PLAIN).status_code == 401
    except httpx.HTTPError:
        return False


def test_the_receiver_takes_what_is_signed_and_refuses_the_rest(
    chat: Engine, called: Receiver, node: tuple[Process, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, url = node
    wait_until(lambda: _answers(url), "it refused what bears no signature")
    monkeypatch.setenv("EVENTS_URL", url)
    get_settings.cache_clear()
    with chat.begin() as connection:
        outbox.emit(connection, "breaker.opened", {"provider": "fcm", "reason": "schön \u2028 'quoted'"})
    assert deliver() == "delivered: taken 1"
    wait_until(lambda: process.said("breaker.opened"), "it said what it took")
    get_settings.cache_clear()


def test_no_stranger_ends_the_receiver(node: tuple[Process, str]) -> None:
    _, url = node
    wait_until(lambda: _answers(url), "it refused what bears no signature")
    signed = b"webhook-timestamp: %d\r\nwebhook-signature: v1,%s\r\n" % (time.time(), b"\xe9" * 44)
    for request in (
        signed + b"Content-Length: 2\r\n\r\n{}",
        signed + b"Content-Length: 100\r\n\r\n{}",
        signed + b"Content-Length: 30000\r\n\r\n{}",
        signed + b"Transfer-Encoding: chunked\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as stranger:
            stranger.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + request)
            stranger.shutdown(socket.SHUT_WR)
            stranger.recv(1000)
    assert _answers(url)


VERIFY = """
const module = {exports: null};
CODE
const told = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(module.exports({$trigger: told, $env: {CHAT_WORKERS_EVENTS_SECRET: process.argv[1]}}).type);
"""


def test_the_script_of_the_flow_for_directus_verifies_what_is_sent(chat: Engine, called: Receiver) -> None:
    """Of the parsed body, as Directus gives it: what JSON.stringify makes of it are the bytes that were signed."""
    ensure(["tests"])
    awkward = {"detail": "".join(map(chr, range(0x300))) + "\u2028\u2029🚚", "none": None, "n": 2**53 - 1, "id": 2**63 - 1}
    with chat.begin() as connection:
        outbox.emit(connection, "backup.failed", awkward)
    assert deliver() == "delivered: taken 1"
    (told,) = called.requests
    code = VERIFY.replace("CODE", (PROJECT / "deploy/directus/verify_event.js").read_text())

    def verified(secret: str) -> str:
        command = ["node", "-e", code, secret]
        done = subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, timeout=60, check=False)
        return done.stdout or re.findall(r"Error: (.*)", done.stderr)[0]

    assert [verified(f"whsec_{secret}") for secret in SECRETS] == ["backup.failed\n"] * 2
    assert verified(f"whsec_{'a' * 44}") == "not signed by the secret of the workers"
    told["headers"]["webhook-signature"] = "v1,é"
    assert verified(f"whsec_{SECRETS[0]}") == "not signed"
    told["body"] = "x" * 30_000
    assert verified(f"whsec_{SECRETS[0]}") == "longer than any event of the workers"
    told["headers"]["webhook-timestamp"] = "1"
    assert verified(f"whsec_{SECRETS[0]}") == "signed too long ago"
