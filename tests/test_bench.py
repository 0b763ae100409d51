"""Every benchmark that can be started says how, and starts none when it is asked for that."""

import importlib

import click
import pytest
from click.testing import CliRunner

# Without the largest, which needs what only `make bench` installs.
BENCHMARKS = ("attachments", "backups", "operations", "outage", "retention", "scaling")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_says_how_it_is_started(name: str) -> None:
    command = importlib.import_module(f"bench.{name}").main
    done = CliRunner().invoke(command, ["--help"])
    assert (done.exit_code, done.output.startswith("Usage: ")) == (0, True)
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []
