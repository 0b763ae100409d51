"""A disk that can be filled: a small tmpfs where mounting is permitted, else a limit on the size of files."""

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

SIZE_BYTES = 512 << 20
FULL_FILE_BYTES = 4096


class Disk:
    """A folder for backups and quarantined files, on a disk of its own where that can be had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mounted = False

    @property
    def kind(self) -> str:
        return "a tmpfs that is shrunk" if self.mounted else "a limit on the size of files (RLIMIT_FSIZE)"

    def __enter__(self) -> Self:
        self.path.mkdir(mode=0o700)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=700", "chaos", str(self.path)]
        self.mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
        for name in ("backups", "quarantine", "kept"):
            (self.path / name).mkdir(mode=0o700)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.mounted:
            # Lazily: a process that still has a file open there must not keep the folder from going.
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def fill(self, writers: Callable[[], Iterable[int]]) -> None:
        """Leave no room. `writers` names the processes that are to meet it where there is no disk of its own."""
        if self.mounted:
            self._resize(shutil.disk_usage(self.path).used)
        else:
            self._limit(writers(), FULL_FILE_BYTES)

    def make_room(self, writers: Callable[[], Iterable[int]]) -> None:
        """Take it back."""
        if self.mounted:
            self._resize(SIZE_BYTES)
        else:
            self._limit(writers(), resource.RLIM_INFINITY)

    def _resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={max(size, 4096)}", str(self.path)], check=True)

    def _limit(self, pids: Iterable[int], size: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
