"""The clients that an API copies: one call starts one job, a fault of ours costs seconds at most, what is wrong is said."""

import importlib.util
import itertools
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from types import ModuleType
from typing import Any

import pytest

from devstack.emulators.certificates import ensure_certificates
from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.programs import ensure, find
from devstack.stack import Stack
from workers.gateway.nudges import WINDOW_SECONDS

from .conftest import Gateway, Queue

PYTHON = PROJECT / "deploy/clients/python/chat_jobs.py"
NODE = PROJECT / "deploy/clients/node/chat_jobs.mjs"

Start = Callable[..., Any]

# Prints what a call returns, or the name of its error.
SCRIPT = f"""
import {{ ChatJobs }} from '{NODE}'
const [url, token, job, argument, milliseconds] = process.argv.slice(1)
const jobs = new ChatJobs(url, token, {{ milliseconds: Number(milliseconds) }})
const answer = await jobs[job](JSON.parse(argument)).catch((error) => `${{error.constructor.name}}: ${{error.message}}`)
console.log(JSON.stringify(answer))
"""


@pytest.fixture(scope="session")
def chat_jobs() -> ModuleType:
    """The Python module, from its file, as a project that has copied it sees it."""
    spec = importlib.util.spec_from_file_location("chat_jobs", PYTHON)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["python", "node"])
def start(request: pytest.FixtureRequest, chat_jobs: ModuleType) -> Start:
    """Call a client: start(url, token, job, argument) returns the tasks' ids, or its error in words."""
    if request.param == "node":
        ensure(["tests"])
        return node

    def python(url: str, token: str, job: str, argument: Any = None, *, seconds: float = 10) -> Any:
        client = chat_jobs.HttpJobs(url, token, seconds=seconds)
        try:
            return getattr(client, job)(*([] if argument is None else [argument]))
        except chat_jobs.JobsError as error:
            return f"{type(error).__name__}: {error}"

    return python


def node(url: str, token: str, job: str, argument: Any = None, *, seconds: float = 10) -> Any:
    done = subprocess.run(
        [find("node"), "--input-type=module", "-e", SCRIPT, url, token, job, json.dumps(argument), str(seconds * 1000)],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_call_puts_the_messages_into_their_queue(
    gateway: Gateway, token: str, start: Start, notifications: Queue, attachments: Queue
) -> None:
    assert start(gateway.url, token, "notifications") == [each["headers"]["id"] for each in notifications.messages()]
    ids = start(gateway.url + "/", token, "attachments", [12, 13])
    assert ids == [each["headers"]["id"] for each in attachments.messages()]
    assert [args for _, args in attachments.calls()] == [[12], [13]]


def test_what_is_wrong_is_said_at_once_in_the_gateways_words(gateway: Gateway, token: str, start: Start) -> None:
    assert start(gateway.url, "wrong", "notifications").startswith("RefusedError: 401: Send the header Authorization")
    assert start(gateway.url, token, "attachments", [0]).startswith("RefusedError: 422: attachment_ids must hold the id")


def test_a_token_that_stays_wrong_is_said_to_be_wrong_after_the_gateway_slows_its_refusals(
    another: Callable[..., Gateway], start: Start
) -> None:
    gateway = another(GATEWAY_REFUSALS_PER_MINUTE="1")
    gateway.token()
    assert start(gateway.url, "wrong", "notifications").startswith("RefusedError: 401: ")
    assert start(gateway.url, "wrong", "notifications", seconds=5).startswith("RefusedError: 429: Too many requests from")


def test_a_token_that_has_asked_too_often_may_ask_later(another: Callable[..., Gateway], start: Start) -> None:
    gateway = another(GATEWAY_REQUESTS_PER_MINUTE="1")
    token = gateway.token()
    assert isinstance(start(gateway.url, token, "notifications"), list)
    assert start(gateway.url, token, "notifications", seconds=5).startswith("NotNudgedError: 429: This token has made")


def test_no_gateway_and_no_redis_mean_that_nobody_was_nudged(gateway: Gateway, token: str, start: Start, stack: Stack) -> None:
    assert start(f"http://127.0.0.1:{free_port()}", token, "notifications", seconds=0.5).startswith("NotNudgedError: no answer")
    stack.redis.kill()
    try:
        assert start(gateway.url, token, "notifications", seconds=5).startswith("NotNudgedError: 503: Redis does not take")
    finally:
        stack.redis.start()


@pytest.fixture
def lossy(gateway: Gateway) -> Iterator[str]:
    """The gateway behind a line that loses the first answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    target = ("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))

    def serve() -> None:
        for number in range(2):
            line, _ = listener.accept()
            with line, socket.create_connection(target) as onward:
                line.settimeout(10)
                sent = b""
                while not sent.endswith(b"}"):
                    sent += line.recv(65536)
                onward.sendall(sent)
                answer = onward.recv(65536)
                if number:
                    line.sendall(answer)

    thread = Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def test_a_burst_of_calls_costs_few_messages_though_workers_take_each_at_once(
    gateway: Gateway, token: str, chat_jobs: ModuleType, notifications: Queue
) -> None:
    ended, jobs = Event(), chat_jobs.HttpJobs(gateway.url, token, seconds=30)

    def work() -> int:
        taken = 0
        while not ended.is_set():
            taken += notifications.redis.brpop(["notifications"], 0.1) is not None
        return taken

    with ThreadPoolExecutor(51) as threads:
        worker = threads.submit(work)
        began = time.monotonic()
        ids = set(itertools.chain(*threads.map(lambda _: jobs.notifications(), range(500))))
        elapsed = time.monotonic() - began
        ended.set()
        sent = worker.result() + len(notifications.messages())
    assert sent == len(ids) <= elapsed / WINDOW_SECONDS + 2


def test_a_lost_answer_is_asked_for_again(lossy: str, token: str, start: Start, attachments: Queue) -> None:
    """The scan is called for twice, which does no harm."""
    ids = start(lossy, token, "attachments", [12])
    assert ids == [attachments.messages()[-1]["headers"]["id"]]
    assert [args for _, args in attachments.calls()] == [[12], [12]]


@pytest.fixture
def peer() -> Iterator[Callable[..., str]]:
    """Something else at the gateway's address: peer(answer) gives each request this answer, and returns its URL.

    After the answer come the bytes of `drip`, again and again, until the client has enough of it.
    """
    listeners, ended = [], Event()

    def serve(listener: socket.socket, answer: bytes, drip: bytes) -> None:
        while not ended.is_set():
            try:
                line, _ = listener.accept()
                with line:
                    received = b""
                    while not received.endswith(b"}") and (more := line.recv(65536)):
                        received += more
                    line.sendall(answer)
                    while drip and not ended.wait(0.02):
                        line.sendall(drip)
            except OSError:
                continue

    def start(answer: bytes, *, drip: bytes = b"", certificate: tuple[Path, Path] | None = None) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            listener = context.wrap_socket(listener, server_side=True)
        listeners.append(listener)
        Thread(target=serve, args=(listener, answer, drip), daemon=True).start()
        return f"http{'s' if certificate else ''}://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    ended.set()
    for listener in listeners:
        listener.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("begun", [b"X-Slow: ", b"Content-Length: 1000000\r\n\r\n"])
def test_a_call_ends_in_time_though_the_answer_never_does(peer: Callable[..., str], start: Start, begun: bytes) -> None:
    url = peer(b"HTTP/1.1 202 Accepted\r\n" + begun, drip=b"x")
    # Node before 20 says AbortError where the body is cut short.
    assert start(url, "token", "notifications", seconds=1).startswith(
        ("NotNudgedError: no answer: TimeoutError", "NotNudgedError: no answer: AbortError")
    )


DEEP = 100_000
NESTED = [b'{"task_ids": [' + b"[" * 700 + b"]" * 701 + b"}", b'{"detail": ' + b"[" * DEEP + b"]" * DEEP + b"}"]


@pytest.mark.parametrize(
    "body", [b"<html>welcome</html>", b"{}", b"[]", b'{"task_ids": null}', b'{"detail": {"toString": 1}}', *NESTED]
)
def test_an_answer_that_is_not_the_gateways_is_an_error_of_the_client(
    peer: Callable[..., str], start: Start, body: bytes
) -> None:
    url = peer(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert start(url, "token", "notifications") == "RefusedError: 202: this is no answer of the gateway"


def test_an_answer_that_is_cut_off_is_asked_for_again(peer: Callable[..., str], start: Start) -> None:
    url = peer(b'HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n{"task_ids"')
    assert start(url, "token", "notifications", seconds=0.5).startswith("NotNudgedError: no answer: ")


def test_a_gateway_behind_tls_is_called_if_its_certificate_is_good(
    peer: Callable[..., str], start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = b'{"task_ids": ["1"]}'
    answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    url = peer(answer, certificate=ensure_certificates(tmp_path))
    assert start(url, "token", "notifications", seconds=0.5).startswith("NotNudgedError: no answer: ")
    for variable in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    assert start(url, "token", "notifications") == ["1"]


@pytest.mark.parametrize("bad", ["open\nsesame", "open sesame", "opén-sesame", " \n"])
def test_a_token_that_no_header_carries_is_refused_at_the_start_and_never_shown(start: Start, bad: str) -> None:
    with pytest.raises((ValueError, subprocess.CalledProcessError)) as refused:
        start(f"http://127.0.0.1:{free_port()}", bad, "notifications", seconds=0.1)
    said = getattr(refused.value, "stderr", str(refused.value))
    assert "the token is empty, or holds" in said
    assert "sesame" not in said


def test_a_blank_after_a_token_is_not_part_of_it(gateway: Gateway, token: str, start: Start) -> None:
    assert isinstance(start(gateway.url, f" {token}\n", "notifications"), list)


def test_the_node_client_takes_ids_as_databases_give_them(gateway: Gateway, token: str, attachments: Queue) -> None:
    """A BIGINT is a BigInt, which JSON does not know, or a text."""
    ensure(["tests"])
    script = SCRIPT.replace("JSON.parse(argument)", "[12n, '13', 14, 9007199254740993n]")
    done = subprocess.run(
        [find("node"), "--input-type=module", "-e", script, gateway.url, token, "attachments", "", "10000"],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert [args for _, args in attachments.calls()] == [[12], [13], [14], [9007199254740993]], done.stdout


def test_the_celery_client_sends_by_name_and_leaves_the_current_app_alone(
    chat_jobs: ModuleType, environment: dict[str, str], notifications: Queue, attachments: Queue
) -> None:
    from celery import current_app

    before = current_app.main
    jobs = chat_jobs.CeleryJobs(environment["CELERY_BROKER_URL"])
    assert current_app.main == before
    assert jobs.notifications() == [each["headers"]["id"] for each in notifications.messages()]
    assert jobs.attachments([12, 13]) == [each["headers"]["id"] for each in attachments.messages()]
    assert notifications.calls() == [("tasks.notifications.drain", [])]
    assert attachments.calls() == [("tasks.attachments.scan", [12]), ("tasks.attachments.scan", [13])]
    assert notifications.redis.type("notifications") == b"list"


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_redis_that_is_down_costs_the_celery_client_a_second_and_it_recovers(
    chat_jobs: ModuleType, environment: dict[str, str], stack: Stack, notifications: Queue, how: str
) -> None:
    jobs = chat_jobs.CeleryJobs(environment["CELERY_BROKER_URL"])
    jobs.notifications()
    getattr(stack.redis, how)()
    try:
        began = time.monotonic()
        for client in (jobs, jobs, chat_jobs.CeleryJobs(environment["CELERY_BROKER_URL"])):
            with pytest.raises(chat_jobs.NotNudgedError, match="Redis does not take the message"):
                client.notifications()
        # Celery's defaults take minutes; three calls of ours at most three seconds, on a machine that does nothing else.
        assert time.monotonic() - began < 20
    finally:
        stack.redis.resume()
        if not stack.redis.running:
            stack.redis.start()
    assert jobs.notifications()


def test_the_modules_are_one_file_each_and_import_nothing_of_the_workers() -> None:
    for path in (PYTHON, NODE):
        imports = [line for line in Path(path).read_text().splitlines() if line.startswith(("import", "from"))]
        assert not [line for line in imports if any(name in line for name in ("workers", "tasks", "db", "settings", "'./"))]
