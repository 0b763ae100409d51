"""Logs, traces and error reports of a real worker that fails: they say what failed, and show no token, message or password."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import structlog
from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from devstack.emulators.client import Emulator, Fault
from devstack.folder import PROJECT
from tasks import counters
from tasks.notifications import run
from tasks.notifications.notification import Notification
from tasks.notifications.queue import Queue
from tests.acceptance.conftest import nudge, send, start_worker
from tests.notifications.conftest import Chat, api
from tests.ops.sink import Sink, sink
from tests.processes import Process, wait_until
from tests.trickle import Trickler, trickling
from workers import error_reports

__all__ = ["api", "nudge", "send", "start_worker"]

TOKEN = "dQw4w9WgXcQ:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx-secret-token"
DEAD = "dQw4w9WgXcQ:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx-dead-token"
BODY = "When-can-you-deliver-the-surprise"
TITLE = "A-secret-title"
# APNs tokens and subscriptions are secrets in a URL's path.
IPHONE, REFUSED_IPHONE, CUT_OFF_IPHONE = "5e" * 32, "4d" * 32, "3c" * 32
BROWSER, REFUSED_BROWSER, CUT_OFF_BROWSER = 918_273_645, 918_273_646, 918_273_647
# At hosts that WEBPUSH_HOSTS allows, but no request can be made of the first two, and nobody listens at the third.
NO_HOST, NO_PORT, NOBODY, ELSEWHERE = "secret-no-host", "secret-no-port", "secret-nobody", "secret-elsewhere"
FAILING = {NO_HOST: "https://a{b.push.test/", NO_PORT: "https://127.0.0.1:99999/", NOBODY: "https://127.0.0.1:1/"}


@pytest.fixture
def receiver() -> Iterator[Sink]:
    with sink() as taken:
        yield taken


@pytest.fixture
def broken(chat: Engine) -> Iterator[Engine]:
    """A chat that a drain can claim and send from, but neither write results to nor park them in."""
    refuse = "BEFORE UPDATE ON worker_deliveries FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not now'"
    with chat.begin() as connection:
        connection.execute(text(f"CREATE TRIGGER refuse {refuse}"))
    yield chat
    with chat.begin() as connection:
        connection.execute(text("DROP TRIGGER refuse"))


def secrets_of(environment: dict[str, str], emulator: Emulator) -> list[str]:
    password = make_url(environment["DATABASE_URL"]).password
    phones = [TOKEN, DEAD, IPHONE, REFUSED_IPHONE, CUT_OFF_IPHONE]
    browsers = [emulator.web_push_subscription(number) for number in (BROWSER, REFUSED_BROWSER, CUT_OFF_BROWSER)]
    keys = [browser.p256dh for browser in browsers] + [browser.auth for browser in browsers]
    endpoints = [browser.endpoint.rpartition("/")[2] for browser in browsers] + [*FAILING, ELSEWHERE]
    return [*phones, *keys, *endpoints, BODY, TITLE, str(password)]


def devices(emulator: Emulator) -> list[object]:
    """Return devices of all providers: some are reached, some are refused, and some fail before an answer comes."""

    def browser(number: int, endpoint: str = "") -> dict[str, object]:
        found = emulator.web_push_subscription(number)
        keys = {"p256dh": found.p256dh, "auth": found.auth}
        return {"provider": "webpush", "endpoint": endpoint or found.endpoint, "keys": keys}

    return [
        TOKEN,
        DEAD,
        *({"provider": "apns", "token": token} for token in (IPHONE, REFUSED_IPHONE, CUT_OFF_IPHONE)),
        *(browser(number) for number in (BROWSER, REFUSED_BROWSER, CUT_OFF_BROWSER)),
        *(browser(BROWSER, start + secret) for secret, start in FAILING.items()),
        browser(BROWSER, f"https://elsewhere.test/{ELSEWHERE}"),
    ]


@pytest.fixture
def observed(
    environment: dict[str, str], emulator: Emulator, receiver: Sink, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, bytes], str]:
    """Configure all providers and everything that tells. Return what says where a secret is told, in a log or elsewhere."""
    base = f"127.0.0.1:{receiver.port}"
    own = emulator.environment | {
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "DEBUG",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{base}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "SENTRY_DSN": f"http://key@{base}/42",
        "WEBPUSH_HOSTS": f"{emulator.environment['WEBPUSH_HOSTS']} 127.0.0.1:1 .push.test",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    refused, cut_off = (
        emulator.web_push_subscription(number).endpoint.rpartition("/")[2] for number in (REFUSED_BROWSER, CUT_OFF_BROWSER)
    )
    emulator.inject(
        Fault(kind="unregistered", token=DEAD),
        Fault(provider="apns", kind="PayloadTooLarge", token=REFUSED_IPHONE),
        Fault(provider="apns", kind="accepted_cut", token=CUT_OFF_IPHONE),
        Fault(provider="webpush", kind="bad_request", token=refused),
        Fault(provider="webpush", kind="accepted_cut", token=cut_off),
    )

    def told(log: str, elsewhere: bytes) -> str:
        places = {"log": log.encode(), "spans": receiver.bodies("/v1/traces"), "reports": receiver.bodies("/envelope/")}
        places["elsewhere"] = elsewhere
        secrets = secrets_of(environment, emulator)
        return ", ".join(
            f"{secret} in {name}" for secret in secrets for name, text in places.items() if secret.encode() in text
        )

    return told


def test_what_is_said_of_a_send_names_no_device(
    api: Chat,
    emulator: Emulator,
    redis: Redis,
    receiver: Sink,
    observed: Callable[[str, bytes], str],
    start_worker: Callable[..., Process],
    nudge: Callable[[], None],
) -> None:
    row = api.notify(*devices(emulator), title=TITLE, body=BODY)
    worker = start_worker(processes=1)
    nudge()
    wait_until(lambda: api.status(row)[0] != "PENDING", "the row was tried")
    assert worker.stop() == 0

    # The sums that /metrics shows, the ledger, and the sentence in the row.
    counted = repr(redis.hgetall(counters.KEY))
    ledgers = repr(
        api.rows("SELECT devices, reason FROM worker_deliveries") + api.rows("SELECT * FROM worker_delivery_history")
    )
    status, is_sent, why = api.status(row)
    assert (status, is_sent) == ("FAILED", 1), why
    for refusal in ("apns 413", "webpush 400", "at no host of WEBPUSH_HOSTS"):
        assert refusal in ledgers
    assert {"apns", "fcm", "webpush"} == {message.provider for message in emulator.accepted()}
    log = worker.lines
    assert observed(log, f"{counted} {ledgers} {why}".encode()) == ""
    assert "provider failed" not in log
    assert b"FOR UPDATE SKIP LOCKED" in receiver.bodies("/v1/traces")


def test_a_worker_that_fails_tells_what_failed_and_nothing_else(
    api: Chat,
    broken: Engine,
    emulator: Emulator,
    receiver: Sink,
    observed: Callable[[str, bytes], str],
    start_worker: Callable[..., Process],
    nudge: Callable[[], None],
) -> None:
    api.notify(*devices(emulator), title=TITLE, body=BODY)
    worker = start_worker(processes=1)
    nudge()
    wait_until(lambda: b"worker_deliveries d" in receiver.bodies("/envelope/"), "the failure was reported")
    wait_until(lambda: b"run/tasks.notifications.drain" in receiver.bodies("/v1/traces"), "the task's span arrived")
    assert worker.stop() == 0

    log, spans, reports = worker.lines, receiver.bodies("/v1/traces"), receiver.bodies("/envelope/")
    assert observed(log, b"") == ""
    failed = [line for line in map(_parsed, log.splitlines()) if line.get("level") == "error"]
    assert any("worker_deliveries d" in json.dumps(line) for line in failed)
    assert b"FOR UPDATE SKIP LOCKED" in spans
    assert b"chat-workers" in spans
    assert b"tasks.notifications.drain" in reports


def _parsed(line: str) -> dict[str, object]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def test_each_line_of_a_drain_has_the_task_id_of_its_own_run(chat: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop lives as long as the process; the first run's id must not stay with it."""
    seen: list[object] = []

    def look(_queue: Queue, _rows: int) -> list[Notification]:
        seen.append(structlog.contextvars.get_contextvars().get("task_id"))
        return []

    monkeypatch.setattr(Queue, "claim_fresh", look)
    for task_id in ("first", "second"):
        with structlog.contextvars.bound_contextvars(task_id=task_id):
            run.drain()
    assert seen == ["first", "second"]


def test_nothing_of_either_is_imported_unless_it_is_wanted(environment: dict[str, str]) -> None:
    code = (
        "import sys, workers.app, tasks.notifications.run\n"
        "from settings import get_settings\n"
        "from workers import error_reports, tracing\n"
        "tracing.check(get_settings()); tracing.start(get_settings()); error_reports.start(get_settings())\n"
        "tracing.flush(); error_reports.flush()\n"
        "wanted = ('opentelemetry.exporter', 'opentelemetry.instrumentation', 'sentry_sdk')\n"
        "print([name for name in sys.modules if name.startswith(wanted)])"
    )
    variables = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], env=variables, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def tell(environment: dict[str, str], server: Trickler) -> None:
    """Run a process that tells the server of a span and of an error, and ends."""
    code = (
        "import workers.app, sentry_sdk\n"
        "from settings import get_settings\n"
        "from workers import error_reports, tracing\n"
        "tracing.check(get_settings()); tracing.start(get_settings()); error_reports.start(get_settings())\n"
        "tracing._provider[0].get_tracer('test').start_span('a span').end(); sentry_sdk.capture_message('a report')\n"
        "tracing.flush(); error_reports.flush()\n"
    )
    base = f"127.0.0.1:{server.address[1]}"
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{base}", "SENTRY_DSN": f"http://key@{base}/42"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment, **own}, cwd=PROJECT, check=True, timeout=60)


@pytest.mark.parametrize("answer", ["body", "status line", "trailers"])
def test_a_process_ends_though_what_it_tells_is_never_answered_to_the_end(environment: dict[str, str], answer: str) -> None:
    with trickling(answer) as server:
        tell(environment, server)
        assert server.asked >= 2


def test_what_is_told_goes_to_no_other_host(environment: dict[str, str], receiver: Sink) -> None:
    elsewhere = f"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:{receiver.port}/latest\r\nContent-Length: 0\r\n\r\n"
    with trickling((elsewhere.encode(), b"")) as server:
        tell(environment, server)
        assert server.asked >= 2
    assert receiver.arrived == []


def test_who_is_asked_over_http_is_not_told_where_errors_are_reported(environment: dict[str, str], receiver: Sink) -> None:
    code = (
        "from settings import get_settings\n"
        "from tasks.backups.ledger import ping\n"
        "from workers import error_reports\n"
        "error_reports.start(get_settings())\n"
        "ping(get_settings(), 'daily', '')"
    )
    own = {"BACKUP_PING_URL": f"http://127.0.0.1:{receiver.port}/ping", "SENTRY_DSN": "http://s3cret@127.0.0.1:1/1"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment, **own}, cwd=PROJECT, check=True, timeout=60)
    assert [path for path, _ in receiver.arrived] == ["/ping"]
    assert "s3cret" not in receiver.headers[0]
    assert "sentry" not in receiver.headers[0]


def test_an_answer_without_end_to_what_is_told_is_not_kept(environment: dict[str, str]) -> None:
    """As fast as this host sends it: else hundreds of megabytes a second."""
    code = (
        "import resource, time, workers.app, sentry_sdk\n"
        "from settings import get_settings\n"
        "from workers import error_reports, tracing\n"
        "tracing.check(get_settings()); tracing.start(get_settings()); error_reports.start(get_settings())\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "tracing._provider[0].get_tracer('test').start_span('a span').end(); sentry_sdk.capture_message('a report')\n"
        "tracing.flush(); error_reports.flush()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    with flooding() as port:
        base = f"127.0.0.1:{port}"
        own = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{base}", "SENTRY_DSN": f"http://key@{base}/42"}
        variables = {**os.environ, **environment, **own}
        done = subprocess.run(
            [sys.executable, "-c", code], env=variables, cwd=PROJECT, check=True, timeout=60, stdout=subprocess.PIPE, text=True
        )
    assert int(done.stdout) < 50_000  # KiB


@contextmanager
def flooding() -> Iterator[int]:
    """Answer whoever asks at this port, and go on for ever."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                connection.sendall(bytes(1 << 20))

    def run() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_an_error_of_the_database_shows_no_values(chat: Engine) -> None:
    with chat.connect() as connection, pytest.raises(DBAPIError) as failed:
        connection.execute(
            text("INSERT INTO no_such_table (token, body) VALUES (:token, :body)"), {"token": TOKEN, "body": BODY}
        )
    assert "no_such_table" in str(failed.value)
    assert TOKEN not in str(failed.value)
    assert BODY not in str(failed.value)


def test_a_report_keeps_no_secret_of_an_errors_text() -> None:
    event = {
        "request": {"data": BODY},
        "breadcrumbs": {"values": [{"message": BODY}]},
        "exception": {"values": [{"type": "E", "value": f"redis://u:pw@host/0 refused {TOKEN}"}]},
        "logentry": {"message": "failed %s", "formatted": f"failed {TOKEN}", "params": [TOKEN]},
    }
    scrubbed = error_reports.scrub(event, {})
    assert scrubbed == {
        "exception": {"values": [{"type": "E", "value": "redis://[…]@host/0 refused […]"}]},
        "logentry": {"message": "failed %s", "formatted": "failed […]"},
    }
