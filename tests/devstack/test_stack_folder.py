"""A stack's folder belongs to one living owner; what a dead one left is ended and wiped, and nothing else is."""

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from devstack.errors import StackError
from devstack.folder import claim
from devstack.pids import ProcessRecord


def stale_folder(path: Path, leftover: ProcessRecord) -> None:
    """Lay out what an owner leaves that was killed before its services were."""
    (path / "pids").mkdir(parents=True)
    (path / "data").write_text("old")
    leftover.save(path / "owner")
    leftover.save(path / "pids" / "sleeper")


def test_a_leftover_process_is_ended_and_its_folder_wiped(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as leftover:
        stale_folder(tmp_path / "demo", ProcessRecord.of(leftover.pid))
        with claim("demo", tmp_path) as folder:
            assert leftover.wait(5) == -9
            assert [entry.name for entry in folder.path.iterdir()] == ["owner"]


def test_a_process_that_was_given_a_recorded_pid_later_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        stale_folder(tmp_path / "demo", replace(ProcessRecord.of(stranger.pid), born="an earlier boot 1234"))
        with claim("demo", tmp_path):
            assert stranger.poll() is None
        stranger.kill()


def test_a_crash_that_left_half_a_record_or_an_empty_folder_is_reclaimed(tmp_path: Path) -> None:
    stale_folder(tmp_path / "demo", ProcessRecord.of(os.getpid()))
    (tmp_path / "demo" / "pids" / "sleeper").write_text('{"pid": 12')
    (tmp_path / "empty").mkdir()
    with claim("demo", tmp_path):
        assert [entry.name for entry in tmp_path.iterdir()] == ["demo"]


def test_a_folder_that_no_stack_made_is_never_wiped(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "draft").write_text("dear")
    (tmp_path / "file").write_text("here first")
    with pytest.raises(StackError, match="is no folder of a stack"), claim("letters", tmp_path):
        pass
    with claim("demo", tmp_path):
        pass
    assert (tmp_path / "letters" / "draft").read_text() == "dear"
    assert (tmp_path / "file").read_text() == "here first"


@pytest.mark.parametrize("name", ["", "../home", "a/b", ".hidden", "x" * 70])
def test_a_name_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StackError, match="A stack's name is made of"), claim(name, tmp_path):
        pass


def test_a_socket_gets_a_short_path_where_the_folder_is_deep_and_is_gone_with_it(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    with claim("demo", deep) as folder:
        path = folder.socket("service")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        assert path.exists()
    assert not path.parent.exists()
