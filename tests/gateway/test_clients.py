"""The clients that an API copies: one call starts one job, a fault of ours costs seconds at most, what is wrong is said."""

import importlib.util
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest

from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.programs import ensure, find
from devstack.stack import Stack

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
        timeout=60,
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
    assert start(gateway.url, "wrong", "notifications", seconds=0.5).startswith("RefusedError: 429: Too many requests from")


def test_a_token_that_has_asked_too_often_may_ask_later(another: Callable[..., Gateway], start: Start) -> None:
    gateway = another(GATEWAY_REQUESTS_PER_MINUTE="1")
    token = gateway.token()
    assert isinstance(start(gateway.url, token, "notifications"), list)
    assert start(gateway.url, token, "notifications", seconds=0.5).startswith("NotNudgedError: 429: This token has made")


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


def test_a_lost_answer_is_asked_for_again_and_starts_nothing_twice(
    lossy: str, token: str, start: Start, attachments: Queue
) -> None:
    ids = start(lossy, token, "attachments", [12])
    assert ids == [each["headers"]["id"] for each in attachments.messages()]


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
        if not stack.redis.process.running:
            stack.redis.start()
    assert jobs.notifications()


def test_the_modules_are_one_file_each_and_import_nothing_of_the_workers() -> None:
    for path in (PYTHON, NODE):
        imports = [line for line in Path(path).read_text().splitlines() if line.startswith(("import", "from"))]
        assert not [line for line in imports if any(name in line for name in ("workers", "tasks", "db", "settings", "'./"))]
