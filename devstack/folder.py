"""The stack's own folder: who holds it, where things lie in it, and how one left by a crash is reclaimed."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from devstack.errors import StackError
from devstack.pids import ProcessRecord

PROJECT = Path(__file__).parents[1]
DEFAULT_ROOT = PROJECT / ".devstack"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")
LONGEST_SOCKET_PATH = 107  # bytes: sun_path in unix(7), less its closing NUL
SHORT_FOLDER = "devstack-"


class Folder:
    """A folder that this process alone holds, by a lock on the folder itself, until it is released."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def log(self, service: str) -> Path:
        return self._subfolder("logs") / f"{service}.log"

    def record(self, service: str, pid: int) -> None:
        """Note a process of this stack, so that it can be ended after a crash of its owner."""
        # One that ended at once needs no record.
        with suppress(ProcessLookupError):
            ProcessRecord.of(pid).save(self._subfolder("pids") / service)

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

    def _subfolder(self, name: str) -> Path:
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path


@contextmanager
def claim(name: str, root: Path = DEFAULT_ROOT) -> Iterator[Folder]:
    """Hold the folder `root/name` while the context lasts. First reclaim what crashed owners left under root.

    Raise StackError if a living stack has this name.
    """
    folder = _claim(name, root.absolute())
    try:
        yield folder
    finally:
        folder.release()


def _claim(name: str, root: Path) -> Folder:
    if not NAME.fullmatch(name):
        raise StackError(f"A stack's name is made of letters, digits, '_', '-' and '.'; {name!r} is not")
    path = root / name
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
        ProcessRecord.of(os.getpid()).save(path / "owner")
    return Folder(path, lock)


def _reclaim(path: Path) -> None:
    """Given a folder under root, end its leftover processes and remove it, unless a living stack holds it."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (NotADirectoryError, PermissionError):
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Never wipe what a stack did not make. One that is empty was left by an owner killed before its first write.
        if (path / "owner").exists() or not any(path.iterdir()):
            _remove(path)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def _remove(path: Path) -> None:
    for record in path.glob("pids/*"):
        if process := ProcessRecord.load(record):
            process.end()
    link = path / "sockets"
    if link.is_symlink() and link.readlink().name.startswith(SHORT_FOLDER):
        shutil.rmtree(link.readlink(), ignore_errors=True)
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "owner":
            entry.unlink()
    # Last, so that a removal cut short is known as a stack's folder and is taken up again.
    (path / "owner").unlink(missing_ok=True)
    path.rmdir()


def _in_use(path: Path) -> str:
    try:
        owner = ProcessRecord.load(path / "owner")
    except PermissionError:
        return f"{path} belongs to another user; choose another name or have its owner remove it"
    if owner is None:
        return f"{path} is no folder of a stack; move it away or choose another name"
    return f"The stack {path.name!r} is already running as process {owner.pid}; end that or choose another name"


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
