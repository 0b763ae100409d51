"""A stack's folder belongs to one living owner; what a dead one left is ended and wiped, and nothing else is."""

import os
import select
import socket
import subprocess
from pathlib import Path

import pytest

from devstack.errors import StackError
from devstack.folder import MARK, claim


def stale_folder(path: Path) -> None:
    """Lay out what an owner leaves that was killed."""
    path.mkdir()
    (path / "data").write_text("old")
    (path / "owner").write_text("1")


def started_for(path: Path, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, env={**os.environ, MARK: str(path)}, stdout=subprocess.PIPE, text=True)


def test_a_leftover_process_and_its_children_are_ended_and_its_folder_wiped(tmp_path: Path) -> None:
    stale_folder(tmp_path / "demo")
    with started_for(tmp_path / "demo", "sh", "-c", "setsid sleep 60 & echo $!; wait") as leftover:
        assert leftover.stdout is not None
        child = os.pidfd_open(int(leftover.stdout.readline()))
        with claim("demo", tmp_path) as folder:
            assert leftover.wait(5) == -9
            assert select.select([child], [], [], 0)[0]
            assert {entry.name for entry in folder.path.iterdir()} == {"owner", "logs"}
        os.close(child)


def test_a_process_of_another_stack_is_left_alone(tmp_path: Path) -> None:
    stale_folder(tmp_path / "demo")
    with started_for(tmp_path / "demo-2", "sleep", "60") as stranger:
        with claim("demo", tmp_path):
            assert stranger.poll() is None
        stranger.kill()


def test_a_crash_that_left_half_a_folder_or_an_empty_one_is_reclaimed(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "owner").touch()
    (tmp_path / "empty").mkdir()
    with claim("demo", tmp_path):
        assert [entry.name for entry in tmp_path.iterdir()] == ["demo"]


def test_a_disk_that_a_killed_campaign_left_mounted_is_unmounted(tmp_path: Path) -> None:
    stale_folder(tmp_path / "chaos")
    (tmp_path / "chaos" / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "chaos", str(tmp_path / "chaos" / "disk")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount")
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
