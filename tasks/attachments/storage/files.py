"""Attachments in a folder: opened segment by segment below the root, never through a link, identified by inode and times."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks import files
from tasks.attachments.storage.base import (
    CHUNK,
    ChangedError,
    Content,
    MissingError,
    RefusedError,
    Storage,
    StorageUnavailableError,
    segments,
    sha256_of,
)

# O_NONBLOCK, so that a FIFO is refused instead of awaited.
LEAF = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

# The kernel stamps files by a clock that ticks each 1-10 ms. A file younger than this could be written once more within one
# tick, without a trace in its times.
TICK_SECONDS = 0.05

NO_PLAIN_FILE = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENAMETOOLONG}


class FileStorage(Storage):
    """A folder, of this machine or mounted."""

    def __init__(self, root_url: str, *, literal_names: bool = False) -> None:
        """`root_url` is file:///an/absolute/folder. `literal_names`: as ATTACHMENTS_LITERAL_NAMES."""
        self._root_url, self._literal = root_url, literal_names
        self._root = Path(root_url.removeprefix("file://"))

    @contextmanager
    def open(self, file_url: str) -> Iterator[Content]:
        with self._folder_of(file_url) as (folder, name), _to("opened"):
            handle = os.open(name, LEAF, dir_fd=folder)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise RefusedError("file_url leads to what is no plain file")
            identity = f"{found.st_dev:x}:{found.st_ino:x} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
            is_young = time.time() - found.st_ctime < TICK_SECONDS
            yield Content(_pieces(handle), found.st_size, identity, may_hide_a_write=is_young)
        finally:
            os.close(handle)

    def still_is(self, file_url: str, content: Content, sha256: str) -> bool:
        try:
            with self.open(file_url) as found:
                return found.identity == content.identity and (not content.may_hide_a_write or sha256_of(found) == sha256)
        except (MissingError, RefusedError):
            return False

    def put(self, file_url: str, content: Content, sha256: str, *, mode: int, writer: str = "") -> None:
        with self._folder_of(file_url) as (folder, name):
            try:
                with files.replacing(Path(name), mode, folder=folder, writer=writer) as file:
                    if sha256_of(content, file.write) != sha256:
                        raise ChangedError
            except OSError as error:
                raise StorageUnavailableError(f"writing the copy failed: {error.strerror}") from None

    def remove(self, file_url: str, content: Content) -> None:  # noqa: ARG002 - a folder has no versions
        with self._folder_of(file_url) as (folder, name), _to("removed"):
            os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    @contextmanager
    def _folder_of(self, file_url: str) -> Iterator[tuple[int, str]]:
        """Yield the folder that file_url lies in, opened, and the name in it."""
        *folders, name = segments(file_url, self._root_url, literal=self._literal)
        try:
            folder = os.open(self._root, files.FOLDER)
        except OSError as error:
            raise StorageUnavailableError(f"the folder {self._root} cannot be opened: {error.strerror}") from None
        try:
            for part in folders:
                with _to("opened"):
                    inner = os.open(part, files.FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder, name
        finally:
            os.close(folder)


def _pieces(handle: int) -> Iterator[bytes]:
    with _to("read"):
        while piece := os.read(handle, CHUNK):
            yield piece


@contextmanager
def _to(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingError("the file is not there") from None
    except OSError as error:
        if error.errno in NO_PLAIN_FILE:
            raise RefusedError("file_url leads through a link, or to what is no plain file") from None
        raise StorageUnavailableError(f"the file cannot be {what}: {error.strerror}") from None
