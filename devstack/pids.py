"""Which process a recorded pid means: one that the kernel has since given to another process is never signalled."""

import json
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessRecord:
    """A pid together with its moment of birth, which tells it from a later process of the same pid."""

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the record of a live process. Raise ProcessLookupError if there is none."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError:
            raise ProcessLookupError(pid) from None
        # The program's name, in brackets, may itself hold spaces and brackets: proc_pid_stat(5).
        state, *fields = stat.rpartition(")")[2].split()
        if state in "ZX":
            raise ProcessLookupError(pid)
        return cls(pid, f"{BOOT.read_text().strip()} {fields[18]}")

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Return the record in a file, or None if its writer was killed before it was whole."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    def alive(self) -> bool:
        try:
            return ProcessRecord.of(self.pid) == self
        except ProcessLookupError:
            return False

    def end(self, seconds: float = 10) -> None:
        """Kill the process, if it is still the recorded one, and wait until it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Asked after the handle is open: from here on the pid cannot pass to another process unnoticed.
            if self.alive():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                gone = select.poll()
                gone.register(handle, select.POLLIN)
                gone.poll(seconds * 1000)
        finally:
            os.close(handle)
