"""A durable write is whole or not at all, whatever ends it."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.folder import PROJECT
from tasks import files

KILLED = """
import os, signal, sys
from pathlib import Path
from tasks import files
with files.replacing(Path(sys.argv[1])) as file:
    file.write(b"half of the new")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"old")
    return tmp_path / "file"


def test_readers_see_the_old_file_until_the_new_one_is_whole(path: Path) -> None:
    with files.replacing(path, 0o640) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (aside,) = (each for each in path.parent.iterdir() if each != path)
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o640)
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.replacing(path) as file:
        file.write(b"new" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_is_killed_leaves_the_old_file_and_is_not_in_the_way_of_the_next(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, path], cwd=PROJECT, check=False)
    assert (done.returncode, path.read_bytes()) == (-signal.SIGKILL, b"old")
    with files.replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_in_place_of_the_file_aside_is_not_followed(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    path.with_name(".file.partial").symlink_to(elsewhere)
    with files.replacing(path) as file:
        file.write(b"new")
    assert (elsewhere.read_bytes(), path.read_bytes()) == (b"precious", b"new")


def test_a_name_in_an_open_folder_is_replaced_wherever_the_folder_has_gone(path: Path, tmp_path: Path) -> None:
    folder = os.open(tmp_path, files.FOLDER)
    try:
        moved = tmp_path.rename(tmp_path.with_name("moved"))
        with files.replacing(Path("file"), folder=folder) as file:
            file.write(b"new")
    finally:
        os.close(folder)
    assert (moved / "file").read_bytes() == b"new"


def test_a_new_file_overwrites_none(path: Path) -> None:
    with pytest.raises(FileExistsError), files.writing(path):
        pass
    assert path.read_bytes() == b"old"
