"""Durable writes: a file is there whole and on the disk, or not at all, wherever its process or machine stops."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def writing(
    path: Path | str, mode: int = 0o600, *, owner: tuple[int, int] = (-1, -1), folder: int | None = None
) -> Iterator[BinaryIO]:
    """Write a new file that is on the disk, with this mode, when the block ends; if the block fails, no file is left.

    Until then only this user may read it. `path` may be a name in a `folder` that is open; `owner` are uid and gid.
    """
    descriptor = os.open(path, NEW, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            os.unlink(path, dir_fd=folder)
        raise


@contextmanager
def replacing(
    path: Path, mode: int = 0o600, *, owner: tuple[int, int] = (-1, -1), folder: int | None = None, writer: str = ""
) -> Iterator[BinaryIO]:
    """Write a file aside and give it its name when the block ends: readers see the old file or the new one, never a part.

    With a `folder` that is open, only the name of `path` counts. The caller keeps other writers of the same file out, or
    names each: the next of the same name removes what one that was killed has left.
    """
    opened = os.open(path.parent, FOLDER) if folder is None else folder
    aside = f".{path.name}{writer and f'.{writer}'}.partial"
    try:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=opened)  # a killed process left it
        with writing(aside, mode, owner=owner, folder=opened) as file:
            yield file
        os.rename(aside, path.name, src_dir_fd=opened, dst_dir_fd=opened)
        os.fsync(opened)
    finally:
        if folder is None:
            os.close(opened)


def sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
