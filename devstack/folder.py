"""The stack's own folder: who holds it, where things lie in it, and how one left by a crash is reclaimed."""

import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devstack.errors import StackError

PROJECT = Path(__file__).parents[1]
DEFAULT_ROOT = PROJECT / ".devstack"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")
# The variable that every process of a stack has, and its children inherit: it tells them from all others after a crash.
MARK = "DEVSTACK_FOLDER"
END_SECONDS = 10
LONGEST_SOCKET_PATH = 107  # bytes: sun_path in unix(7), less its closing NUL
SHORT_FOLDER = "devstack-"


class Folder:
    """A folder that this process alone holds, by a lock on the folder itself, until it is released."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.logs = path / "logs"
        self.logs.mkdir()
        self._lock = lock

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    def socket(self, service: str) -> Path:
        """Return a path for a Unix socket, outside the folder where the folder's own path is too long for one."""
        path = self.path / f"{service}.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        link = self.path / "sockets"
        if not link.is_symlink():
            link.symlink_to(tempfile.mkdtemp(prefix=SHORT_FOLDER))
        return link.readlink() / path.name

    def release(self) -> None:
        """Remove the folder and everything in it, and give up the lock."""
        root = self.path.parent
        with _locked(root.parent):
            _remove(self.path)
            os.close(self._lock)
            # Other stacks may still be there.
            with suppress(OSError):
                root.rmdir()


@contextmanager
def claim(name: str, root: Path = DEFAULT_ROOT) -> Iterator[Folder]:
    """Hold the folder `root/name` while the context lasts. First reclaim what crashed owners left under root.

    Raise StackError if a living stack has this name.
    """
    if not NAME.fullmatch(name):
        raise StackError(f"A stack's name is made of letters, digits, '_', '-' and '.'; {name!r} is not")
    folder = _claim(root.absolute() / name)
    try:
        yield folder
    finally:
        folder.release()


def _claim(path: Path) -> Folder:
    root = path.parent
    # The lock on the folder above makes looking, wiping and making one step; that folder is never removed.
    with _locked(root.parent):
        root.mkdir(exist_ok=True)
        for left in root.iterdir():
            _reclaim(left)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            raise StackError(_in_use(path)) from None
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (path / "owner").write_text(str(os.getpid()))
    return Folder(path, lock)


def _reclaim(path: Path) -> None:
    """Given a folder under root, end its leftover processes and remove it, unless a living stack holds it."""
    with suppress(NotADirectoryError, PermissionError, BlockingIOError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        # Never wipe what a stack did not make. One that is empty was left by an owner killed before its first write.
        if (path / "owner").exists() or not any(path.iterdir()):
            _remove(path)


def _remove(path: Path) -> None:
    _end_processes(path)
    link = path / "sockets"
    if link.is_symlink() and link.readlink().name.startswith(SHORT_FOLDER):
        shutil.rmtree(link.readlink(), ignore_errors=True)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        # Only a killed campaign leaves its small disk mounted; a busy mount point cannot be removed.
        if (mounted := line.split()[1]).startswith(f"{path}/"):
            subprocess.run(["umount", "--lazy", mounted], check=True)
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "owner":
            entry.unlink()
    # Last, so that a removal cut short is known as a stack's folder and is taken up again.
    (path / "owner").unlink(missing_ok=True)
    path.rmdir()


def _end_processes(path: Path) -> None:
    """Kill what was started for this folder and goes on without its owner, and wait until it is gone."""
    mark = os.fsencode(f"{MARK}={path}")
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            process = os.pidfd_open(int(environment.parent.name))
            try:
                # Asked after the handle is open: from here on the pid cannot pass to another process unnoticed.
                if mark in environment.read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    select.select([process], [], [], END_SECONDS)
            finally:
                os.close(process)


def _in_use(path: Path) -> str:
    try:
        owner = (path / "owner").read_text()
    except PermissionError:
        return f"{path} belongs to another user; choose another name or have its owner remove it"
    except FileNotFoundError:
        return f"{path} is no folder of a stack; move it away or choose another name"
    return f"The stack {path.name!r} is already running as process {owner}; end that or choose another name"


@contextmanager
def _locked(directory: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, operation)
        yield
    finally:
        os.close(lock)
