"""What may stand in a log line, and what never does."""

import json
import logging as standard
from collections.abc import Iterator

import pytest

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
