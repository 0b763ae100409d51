"""What may stand in a log line, and what never does."""

import json
import logging as standard
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from settings import get_settings
from workers import logging

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
