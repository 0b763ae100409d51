"""Attachments in a folder: opened segment by segment below the root, never through a link, identified by inode and times."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks import files
from tasks.attachments.storage.address import segments
from tasks.attachments.storage.base import ChangedError, Content, MissingError, RefusedError, StorageUnavailableError, sha256_of

# O_NONBLOCK, so that a FIFO is refused instead of awaited.
LEAF = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# The kernel stamps files by a clock that ticks each 1-10 ms. A file younger than this could be written once more within one
# tick, without a trace in its times.
TICK_SECONDS = 0.05

NO_PLAIN_FILE = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG}


class FileContent:
    """An open file. It is the same as before if its inode, size and change time are."""

    def __init__(self, storage: "FileStorage", file_url: str, handle: int) -> None:
        self._storage = storage
        self._file_url = file_url
        self._handle = handle
        opened = os.fstat(handle)
        self._may_hide_a_write = time.time() - opened.st_ctime < TICK_SECONDS
        self.size: int | None = opened.st_size
        self.identity = f"{opened.st_dev:x}:{opened.st_ino:x} {opened.st_size} {opened.st_mtime_ns} {opened.st_ctime_ns}"

    def read_into(self, buffer: memoryview) -> int:
        try:
            return os.readv(self._handle, [buffer])
        except OSError as error:
            raise StorageUnavailableError(f"reading the file failed: {error.strerror}") from None

    def still_is(self, sha256: str) -> bool:
        try:
            with self._storage.open(self._file_url) as found:
                return found.identity == self.identity and (not self._may_hide_a_write or sha256_of(found) == sha256)
        except (MissingError, RefusedError):
            return False

    def remove(self) -> None:
        self._storage.remove(self._file_url)


class FileStorage:
    """A folder, of this machine or mounted."""

    def __init__(self, root_url: str) -> None:
        """`root_url` is file:///an/absolute/folder."""
        self._root_url = root_url
        self._root = Path(root_url.removeprefix("file://"))

    @contextmanager
    def open(self, file_url: str) -> Iterator[FileContent]:
        with self._folder_of(file_url) as (folder, name):
            handle = _open(name, LEAF, folder)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RefusedError("file_url leads to what is no plain file")
            yield FileContent(self, file_url, handle)
        finally:
            os.close(handle)

    def put(self, file_url: str, content: Content, sha256: str, *, mode: int, writer: str = "") -> None:
        with self._folder_of(file_url) as (folder, name):
            try:
                with files.replacing(Path(name), mode, folder=folder, writer=writer) as file:
                    if sha256_of(content, file.write) != sha256:
                        raise ChangedError
            except OSError as error:
                raise StorageUnavailableError(f"writing the copy failed: {error.strerror}") from None

    def remove(self, file_url: str) -> None:
        """Delete the file. Raise what `open` raises."""
        with self._folder_of(file_url) as (folder, name):
            try:
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
            except FileNotFoundError:
                raise MissingError("the file is not there") from None
            except OSError as error:
                raise StorageUnavailableError(f"removing the file failed: {error.strerror}") from None

    @contextmanager
    def _folder_of(self, file_url: str) -> Iterator[tuple[int, str]]:
        """Yield the folder that file_url lies in, opened, and the name in it."""
        *folders, name = segments(file_url, self._root_url)
        try:
            folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageUnavailableError(f"the folder {self._root} cannot be opened: {error.strerror}") from None
        try:
            for part in folders:
                inner = _open(part, FOLDER, folder)
                os.close(folder)
                folder = inner
            yield folder, name
        finally:
            os.close(folder)


def _open(name: str, flags: int, folder: int) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise MissingError("the file is not there") from None
    except OSError as error:
        if error.errno in NO_PLAIN_FILE:
            raise RefusedError("file_url leads through a link, or to what is no plain file") from None
        raise StorageUnavailableError(f"the file cannot be opened: {error.strerror}") from None
