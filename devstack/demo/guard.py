"""Whatever a command starts ends with its owner: `python -m devstack.demo.guard COMMAND …`.

honcho gives each process of a Procfile a session of its own, so no signal to a group reaches them all, and a honcho that is
killed leaves them running. Linux hands orphans to the nearest ancestor that has asked for them, prctl(2): the guard has, so
that in the end all of them are its children.

stdin is the line to the owner. A byte asks for an end in good order; its closing means that the owner is gone, and the end
comes at once.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from devstack import signals

STOP_SECONDS = 12.0
PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run the command until it ends or the owner wants it to; return its exit status."""
    _adopt_orphans()
    with signals.unwinding():
        try:
            return _run(command)
        finally:
            signals.deaf()
            _end_children()


def _run(command: list[str]) -> int:
    # Where the guard itself is killed, the command is asked to end by the kernel.
    child = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "--", *command], stdin=subprocess.DEVNULL)
    wanted = select.poll()
    handle = os.pidfd_open(child.pid)
    wanted.register(handle, select.POLLIN)
    wanted.register(sys.stdin.fileno(), select.POLLIN)
    ended = [descriptor for descriptor, _ in wanted.poll()]
    os.close(handle)
    if sys.stdin.fileno() in ended and os.read(sys.stdin.fileno(), 1):
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
    return child.poll() or 0


def _adopt_orphans() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _end_children() -> None:
    """Kill the children, then those that their deaths hand over, until there are none."""
    while children := _children():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _children() -> list[int]:
    return [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _parent(stat) == os.getpid()]


def _parent(stat: Path) -> int | None:
    try:
        # The program's name, in brackets, may itself hold spaces and brackets: proc_pid_stat(5).
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
