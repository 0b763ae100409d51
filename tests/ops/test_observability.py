"""Logs, traces and error reports of a real worker that fails: they say what failed, and show no token, message or password."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import structlog
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from devstack.emulators.client import Emulator, Fault
from devstack.folder import PROJECT
from tasks.notifications import run
from tests.acceptance.conftest import Worker, nudge, send, start_worker, wait_until
from tests.notifications.conftest import Chat, api
from tests.ops.sink import Sink, sink
from workers import error_reports

__all__ = ["api", "nudge", "send", "start_worker"]

TOKEN = "dQw4w9WgXcQ:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx-secret-token"
DEAD = "dQw4w9WgXcQ:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx-dead-token"
BODY = "When-can-you-deliver-the-surprise"
TITLE = "A-secret-title"


@pytest.fixture
def receiver() -> Iterator[Sink]:
    with sink() as taken:
        yield taken


@pytest.fixture
def broken(chat: Engine) -> Iterator[Engine]:
    """A chat that a drain can claim and send from, but not write all of its results to."""
    with chat.begin() as connection:
        connection.execute(text("ALTER TABLE worker_delivery_counts RENAME TO worker_delivery_counts_away"))
        connection.execute(text("ALTER TABLE worker_delivery_history RENAME TO worker_delivery_history_away"))
    yield chat
    with chat.begin() as connection:
        connection.execute(text("ALTER TABLE worker_delivery_counts_away RENAME TO worker_delivery_counts"))
        connection.execute(text("ALTER TABLE worker_delivery_history_away RENAME TO worker_delivery_history"))


def secrets_of(environment: dict[str, str]) -> list[str]:
    password = make_url(environment["DATABASE_URL"]).password
    return [TOKEN, DEAD, BODY, TITLE, str(password)]


def test_a_worker_that_fails_tells_what_failed_and_nothing_else(
    api: Chat,
    broken: Engine,
    emulator: Emulator,
    environment: dict[str, str],
    receiver: Sink,
    start_worker: Callable[..., Worker],
    nudge: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = f"127.0.0.1:{receiver.port}"
    own = {
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "DEBUG",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{base}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "SENTRY_DSN": f"http://key@{base}/42",
    }
    for name, value in own.items():
        monkeypatch.setitem(environment, name, value)
    emulator.inject(Fault(kind="unregistered", token=DEAD))
    api.notify(TOKEN, DEAD, title=TITLE, body=BODY)
    worker = start_worker(processes=1)
    nudge()
    wait_until(lambda: b"worker_delivery_" in receiver.bodies("/envelope/"), "the failure was reported", 30)
    wait_until(lambda: b"run/tasks.notifications.drain" in receiver.bodies("/v1/traces"), "the task's span arrived", 30)
    worker.send(signal.SIGTERM)
    assert worker.process.wait(20) == 0

    log, spans, reports = worker.log.read_text(), receiver.bodies("/v1/traces"), receiver.bodies("/envelope/")
    for secret in secrets_of(environment):
        assert secret not in log
        assert secret.encode() not in spans
        assert secret.encode() not in reports
    failed = [line for line in map(_parsed, log.splitlines()) if line.get("level") == "error"]
    assert any("worker_delivery_" in json.dumps(line) for line in failed)
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

    def look(_queue: object, _claimed: object) -> list[object]:
        seen.append(structlog.contextvars.get_contextvars().get("task_id"))
        return []

    monkeypatch.setattr(run, "_jobs", look)
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
