"""What holds for every command: its JSON, its tables, its help and its ends."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from devstack.folder import PROJECT
from tasks.words import LONGEST_LINE, count, duration, moment, printable, size
from tests.cli.test_terminal import COLOURS
from tests.retention.rows import notification, parents
from workers.cli import GROUPS, cli
from workers.cli.output import Table, emit, say
from workers.json_text import json_text
from workers.operations.alerts import Trouble


def in_a_process(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-c", "from workers.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=PROJECT, env={**os.environ, **environment}, capture_output=True, check=False)


def test_json_has_one_form_for_each_kind_of_value() -> None:
    noon = datetime(2026, 2, 1, 12, 0, 0, 500, UTC)
    value = {
        "times": [noon.replace(tzinfo=None), noon.astimezone(timezone(timedelta(hours=2))), date(2026, 2, 1)],
        "numbers": [Decimal("3"), Decimal("2.5"), float("inf"), Decimal("NaN"), 7, True, None],
        "others": [Path("/srv"), frozenset({"b", "a"}), Trouble("BeatDown", "critical", "No beat.")],
        "drill": "ü\x7f\x9b\u202e",
    }  # fmt: skip
    printed = json_text(value)
    assert printed.isascii()
    assert "\x7f" not in printed
    assert json.loads(printed) == {
        "times": ["2026-02-01T12:00:00.000500Z", "2026-02-01T12:00:00.000500Z", "2026-02-01"],
        "numbers": [3, 2.5, None, None, 7, True, None],
        "others": ["/srv", ["a", "b"], {"alert": "BeatDown", "severity": "critical", "sentence": "No beat.", "minutes": 0}],
        "drill": "ü\x7f\x9b\u202e",
    }


def test_a_value_without_a_json_form_is_a_fault() -> None:
    with pytest.raises(TypeError, match="not JSON serializable: object"):
        json_text([object()])


def test_words_for_people() -> None:
    assert [duration(s) for s in (0, 0.04, 0.3, 5, 9.96, 42, 119, 600, 7500, 200_000, -7500)] == [
        "0 s", "0 s", "0.3 s", "5 s", "10 s", "42 s", "119 s", "10 min", "2 h", "2 d", "-2 h",
    ]  # fmt: skip
    assert [size(b) for b in (0, 999, 12_345, 3_400_000, 5e9, 2e12)] == ["0 B", "999 B", "12 kB", "3.4 MB", "5.0 GB", "2.0 TB"]
    assert (count(1234), count(1000, 1000)) == ("1,234", "1,000+")
    assert (moment(datetime(2026, 2, 1, tzinfo=UTC)), moment(None)) == ("2026-02-01 00:00:00Z", "never")


def test_a_stranger_s_text_is_one_line_of_signs_that_do_nothing() -> None:
    assert printable("Zürich 🚚 \x1b[2J\x9b\r\n\u202e\u2028") == r"Zürich 🚚 \x1b[2J\x9b\r\n\u202e\u2028"
    assert len(printable("\x9b" * 8_000_000)) == len(printable("A" * 8_000_000)) == LONGEST_LINE


def test_in_a_pipe_a_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(Table(("name", "why"), [("x" * 90, "y" * 90)]))
    assert f"{'x' * 90}  {'y' * 90}" in capsys.readouterr().out


def test_names_are_whole_and_other_cells_are_folded_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    say(Table(("policy", "rows_per_run", "why"), [("retention-typing-indicators", 5, "the disk is full " * 10)]))
    lines = COLOURS.sub("", capsys.readouterr().out).splitlines()
    assert lines[0].startswith("policy")
    assert "rows per run" in lines[0]
    assert lines[1].startswith("retention-typing-indicators  ")
    assert (len(lines) > 3, max(map(len, lines)) <= 80) == (True, True)


def test_lines_are_printed_as_they_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    def lines() -> Iterator[str]:
        yield "first"
        assert capsys.readouterr().out == "first\n"
        yield "second"

    emit(None, lines())


@pytest.mark.parametrize("group", GROUPS)
def test_help_needs_no_settings(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.cli.group.get_settings", lambda: pytest.fail("help asked for the settings"))
    shown = CliRunner().invoke(cli, [group, "--help"])
    assert (shown.exit_code, shown.stdout.startswith(f"Usage: cli {group}")) == (0, True)


def test_help_in_an_empty_environment_and_a_missing_setting_in_one_sentence() -> None:
    assert in_a_process("db", "migrate", "--help", DATABASE_URL="").returncode == 0
    assert in_a_process("--version", DATABASE_URL="").stdout.strip().endswith(metadata.version("chat-workers").encode())
    failed = in_a_process("db", "check", DATABASE_URL="")
    assert (failed.returncode, failed.stderr.count(b"\n")) == (2, 1)
    assert failed.stderr.startswith(b"chat-workers: DATABASE_URL ")


def test_a_name_that_the_locale_cannot_write_ends_no_command(chat: Engine) -> None:
    parents(chat)
    with chat.begin() as connection:
        notification(connection, 1, created="NOW()")
        connection.execute(text("UPDATE chat_notifications SET error_message = '東京 Zürich'"))
    shown = in_a_process("notifications", "show", "1", PYTHONIOENCODING="latin-1")
    assert shown.returncode == 0, shown.stderr
    assert rb"\u6771\u4eac Z" + b"\xfcrich" in shown.stdout
