"""A program that is missing is named in one sentence, with its package and the command to run."""

import subprocess
import sys
from pathlib import Path

import pytest

from devstack import programs
from devstack.errors import StackError
from devstack.ports import EPHEMERAL, LOWEST, free_port


def pretend(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch(mode=0o755)


def test_one_missing_program(tmp_path: Path) -> None:
    pretend(tmp_path, "setpriv")
    with pytest.raises(StackError) as caught:
        programs.ensure(["redis", "s3"], search_path=str(tmp_path), may_install=False)
    assert str(caught.value) == (
        "redis-server is missing; install with: sudo apt-get install --no-install-recommends redis-server"
    )


def test_several_missing_programs_in_one_sentence(tmp_path: Path) -> None:
    pretend(tmp_path, "setpriv", "mariadb-install-db", "mariadb", "mariadb-dump")
    with pytest.raises(StackError) as caught:
        programs.ensure(["mariadb", "clamd"], search_path=str(tmp_path), may_install=False)
    assert str(caught.value) == (
        "mariadbd, my_print_defaults, openssl, zstd, clamd are missing;"
        " install with: sudo apt-get install --no-install-recommends"
        " clamav-daemon mariadb-client-core mariadb-server-core openssl zstd"
    )


def test_nothing_is_said_or_installed_when_all_are_there(tmp_path: Path) -> None:
    pretend(tmp_path, "setpriv", "redis-server")
    programs.ensure(["redis"], search_path=str(tmp_path), may_install=True)


def test_programs_outside_an_ordinary_users_path_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Path(programs.find("mariadbd")).name == "mariadbd"


def test_a_free_port_is_not_one_that_outgoing_connections_are_given() -> None:
    lowest, highest = map(int, EPHEMERAL.read_text().split())
    ports = {free_port() for _ in range(20)}
    assert len(ports) == 20
    if lowest > LOWEST + 1000:  # where they begin lower, no room is left for others
        assert not any(lowest <= port <= highest for port in ports)


def test_a_port_that_a_living_process_was_given_is_given_to_no_other() -> None:
    """Before anybody listens on it."""
    source = "import random, sys; from devstack.ports import free_port; random.seed(1); print(free_port(), flush=True)"
    run = [sys.executable, "-c", f"{source}; sys.stdin.read()"]
    with (
        subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one,
        subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        assert one.stdout
        assert other.stdout
        assert one.stdout.readline() != other.stdout.readline()
