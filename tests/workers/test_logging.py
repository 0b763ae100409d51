"""What may stand in a log line, and what never does."""

import json
import logging as standard
import os
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog

from devstack.folder import PROJECT
from devstack.ports import free_port
from settings import get_settings
from tasks.backups import ledger
from tests.processes import Start, answers, wait_until
from workers import logging, signals

SECRET = "a-password-in-a-variable"


@pytest.fixture
def root_logger() -> Iterator[standard.Logger]:
    """The root logger, put back as it was."""
    root = standard.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_variables(
    environment: dict[str, str], root_logger: standard.Logger, capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    logging.configure(get_settings().model_copy(update={"log_format": log_format}))

    def fail() -> None:
        password = SECRET[::-1]
        raise RuntimeError(len(password))

    try:
        fail()
    except RuntimeError:
        standard.getLogger("tasks").exception("it failed")
    written = capsys.readouterr().err
    assert "it failed" in written
    assert "RuntimeError" in written
    assert SECRET[::-1] not in written
    if log_format == "json":
        assert json.loads(written)["exception"]


class BadHeaders(BaseHTTPRequestHandler):
    """Answers with a line among the headers that is none, of which urllib3 warns."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.wfile.write(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_the_key_in_the_path_of_a_request_is_not_logged(
    environment: dict[str, str], root_logger: standard.Logger, capsys: pytest.CaptureFixture[str], level: str
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BadHeaders) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{SECRET}/chat-{{job}}"
        settings = get_settings().model_copy(update={"log_level": level, "backup_ping_url": url})
        logging.configure(settings)
        ledger.ping(settings, "daily", "")
        server.shutdown()
    standard.getLogger("tasks").info("pinged")
    written = capsys.readouterr().err
    assert "pinged" in written
    assert SECRET not in written


FORGED = "x\n2026-01-01T00:00:00Z [error    ] forged\x1b[2J\x9b\u202e"


def test_no_text_forges_a_line_of_the_log(
    environment: dict[str, str], root_logger: standard.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.configure(get_settings().model_copy(update={"log_format": "console"}))

    standard.getLogger("celery").error("Task %s is refused", FORGED)
    structlog.get_logger("tasks").error(FORGED, id=FORGED, ids=[FORGED])
    try:
        raise RuntimeError(FORGED)
    except RuntimeError:
        structlog.get_logger("tasks").exception("it failed")

    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.isprintable()] == []
    events = [line for line in lines if not line.startswith("    ")]
    assert ["forged" in event for event in events] == [True, True, False]
    assert not any(event.startswith("2026-01-01") for event in events)
    assert any(line.strip().startswith("2026-01-01") for line in lines)  # in the traceback, indented


LONGEST_OF_JOURNALD = 48 * 1024


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("sign", ["A", "\U0001f69a", "\x9b"])
def test_no_line_is_so_long_that_the_journal_makes_two_of_it(
    environment: dict[str, str],
    root_logger: standard.Logger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log_format: str,
    sign: str,
) -> None:
    long = sign * LONGEST_OF_JOURNALD + "<2>forged"
    with (tmp_path / "journal").open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        logging.configure(get_settings().model_copy(update={"log_format": log_format}))
        standard.getLogger("celery").error("Task %s is refused", long)
        structlog.get_logger("tasks").error(long, id=long, ids=[long], name=long)
        try:
            raise RuntimeError(long)
        except RuntimeError:
            structlog.get_logger("tasks").exception("it failed")
    lines = (tmp_path / "journal").read_bytes().splitlines()
    assert max(map(len, lines)) < LONGEST_OF_JOURNALD
    assert all(line.startswith(b"<3>") for line in lines)
    if log_format == "json":
        assert [json.loads(line[3:])["level"] for line in lines] == ["error"] * 3


def test_each_line_for_the_journal_begins_with_its_priority(
    environment: dict[str, str], root_logger: standard.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        logging.configure(get_settings())
        structlog.get_logger("tasks").info("all is well")
        try:
            raise RuntimeError("of two\nlines")
        except RuntimeError:
            standard.getLogger("tasks").exception("it failed")
    said, *failed = (tmp_path / "journal").read_text().splitlines()
    assert said.startswith("<6>")
    assert len(failed) > 3
    assert all(line.startswith("<3>") for line in failed)


def test_a_traceback_is_plain_where_no_person_looks(
    environment: dict[str, str], root_logger: standard.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.configure(get_settings())
    try:
        raise RuntimeError("no colours, no boxes")
    except RuntimeError:
        standard.getLogger("celery").exception("it failed")
    written = capsys.readouterr().err
    assert written.isascii()
    assert "\x1b" not in written
    event, *more = written.splitlines()
    assert "it failed" in event
    assert more[0] == "    Traceback (most recent call last):"
    assert more[-1] == "    RuntimeError: no colours, no boxes"


def test_what_a_signal_s_handler_says_makes_no_logger_in_the_thread_that_it_cut_into(
    environment: dict[str, str],
    root_logger: standard.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logging.configure(get_settings())
    loggers = standard.Logger.manager.loggerDict
    monkeypatch.delitem(loggers, "workers.signals", raising=False)
    with standard._lock:  # type: ignore[attr-defined]  # as while Logger.setLevel goes through all loggers
        signals._say("worker: Warm shutdown (MainProcess)")
        assert "workers.signals" not in loggers
    wait_until(lambda: "Warm shutdown" in capsys.readouterr().err, "it was logged")


PROCESSES = dict(re.findall(r"^(\w+): (?:python -m )?(.*)$", (PROJECT / "Procfile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_writes_one_format_from_its_start_to_its_end(
    start: Start, redis: object, tmp_path: Path, name: str
) -> None:
    port = free_port()
    words = re.sub(r"\$\{\w+:-(\d+)\}", r"\1", PROCESSES[name])
    variables = {"LOG_FORMAT": "json", "FLOWER_DIR": f"{tmp_path}/flower", "FLOWER_PORT": str(port), "GATEWAY_PORT": str(port)}
    process = start(words, name, **variables)

    def is_up() -> bool:
        if name in {"flower", "gateway"}:
            return answers(f"http://127.0.0.1:{port}/healthcheck" if name == "flower" else f"http://127.0.0.1:{port}/healthz")
        return process.said("this beat holds the lock" if name == "beat" else " ready.")

    process.wait_until(is_up, "it was up")
    process.stop()
    events = [json.loads(line) for line in process.lines.splitlines()]
    assert all({"event", "level", "logger", "timestamp"} <= event.keys() for event in events)
