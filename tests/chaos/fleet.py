"""The Procfile's processes on two make-believe hosts, each started again when it ends, as systemd would."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from types import TracebackType
from typing import Self

from honcho.environ import parse_procfile

from devstack.errors import StackError
from devstack.folder import PROJECT

# Seconds from the end of a process to its next start: systemd's RestartSec.
RESTART_SECONDS = 0.5
# What a process that was asked to end is given: systemd's TimeoutStopSec.
STOP_SECONDS = 60
# The parent-death signal fires when the thread that started the child ends (prctl(2)): this one lives as long as the process.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fleet-spawner")

# What a process says when it works; the others say nothing.
READY = defaultdict(lambda: b" ready.", {"beat": b"", "gateway": b""})
# With what Python needs under a moved clock.
MOVED_CLOCK = Path(__file__).parent / "moved_clock"
KEPT = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR")


@dataclass(slots=True)
class Member:
    """One process of the fleet, whatever its pid is just now."""

    name: str
    role: str
    environment: dict[str, str]
    code: Path = PROJECT
    """The checkout that it runs."""
    clock: str = ""
    """Its offset from the true time, as faketime takes it; empty: none."""
    process: "subprocess.Popen[bytes] | None" = None
    ended_at: float = 0.0
    starts: int = 0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.poll() is None else None


class Fleet:
    """A context in which the members run and are kept running."""

    def __init__(self, members: dict[str, tuple[str, dict[str, str]]], logs: Path, code: Path = PROJECT) -> None:
        """`members` names for each member its entry in the Procfile and the environment it runs in."""
        self.logs = logs
        self.members = {name: Member(name, role, environment, code) for name, (role, environment) in members.items()}
        self.ends: Counter[str] = Counter()
        """Exit statuses that were not asked for by a fault, by member and status."""
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="fleet", daemon=True)

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        for member in self.members.values():
            self._start(member)
        self._keeper.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._keeper.join()
        for member in self.members.values():
            self.signal(member.name, signal.SIGTERM)
            self.signal(member.name, signal.SIGCONT)
        deadline = time.monotonic() + STOP_SECONDS / 2
        for member in self.members.values():
            if member.process is not None:
                with suppress(subprocess.TimeoutExpired):
                    member.process.wait(max(0.1, deadline - time.monotonic()))
                self._bury(member)

    def names(self, role: str) -> list[str]:
        return [member.name for member in self.members.values() if member.role == role]

    def pid(self, name: str) -> int | None:
        """Return the pid of a member's main process, None while it is down."""
        return self.members[name].pid

    def children(self, name: str) -> list[int]:
        """Return the pids of a member's direct children: a worker's pool."""
        pid = self.pid(name)
        if pid is None:
            return []
        with suppress(FileNotFoundError, ProcessLookupError):
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def signal(self, name: str, number: Signals) -> bool:
        """Signal a member's main process; return False if it is down."""
        if (pid := self.pid(name)) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                return True
        return False

    def signal_all(self, name: str, number: Signals) -> bool:
        """Signal a member's main process and its children at once, as a machine that stops does to them."""
        if (pid := self.pid(name)) is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)
                return True
        return False

    def await_started(self, name: str, after: int, seconds: float = 30) -> bool:
        """Wait until the member was started more than `after` times."""
        deadline = time.monotonic() + seconds
        while self.members[name].starts <= after and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.members[name].starts > after

    def roll(self, name: str, *, code: Path | None = None, clock: str | None = None) -> bool:
        """Stop a member in good order and have it started again, from other code or with another clock if given.

        Return False if it was down.
        """
        member = self.members[name]
        if code is not None:
            member.code = code
        if clock is not None:
            member.clock = clock
        before, process = member.starts, member.process
        was_up = self.signal(name, signal.SIGTERM)
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        if process is not None and process.poll() is None:
            self.ends[f"{name}: did not end within {STOP_SECONDS} s of SIGTERM"] += 1
            self.signal_all(name, signal.SIGKILL)
        self.await_started(name, before)
        return was_up

    def await_ready(self, name: str, log_from: int = 0, seconds: float = 60) -> bool:
        """Wait until the member has said that it works, behind a position of its log; return False if it does not."""
        deadline = time.monotonic() + seconds
        while READY[self.members[name].role] not in self.log(name).read_bytes()[log_from:]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def log(self, name: str) -> Path:
        """Return where a member writes."""
        return self.logs / f"{name}.log"

    def memory(self) -> dict[str, int]:
        """Return each member's memory in bytes, its children's included; shared pages are counted by their share (PSS)."""
        found = {}
        for name in self.members:
            pids = [pid for pid in (self.pid(name), *self.children(name)) if pid is not None]
            found[name] = sum(_pss(pid) for pid in pids)
        return found

    def _keep(self) -> None:
        while not self._over.wait(0.1):
            for member in self.members.values():
                process = member.process
                if process is None or process.poll() is None:
                    continue
                if not member.ended_at:
                    member.ended_at = time.monotonic()
                    self.ends[f"{member.name}: {process.returncode}"] += 1
                elif time.monotonic() - member.ended_at >= RESTART_SECONDS:
                    # What a main process that was killed has left behind goes with it: systemd's KillMode=mixed.
                    self._bury(member)
                    self._start(member)

    def _start(self, member: Member) -> None:
        # Of the version that it runs: its entry may have been another then.
        command = (
            parse_procfile((member.code / "Procfile").read_text()).processes[member.role].replace("@%h", f"@{member.name}")
        )
        # The interpreter by its own path: a console script would import the checkout that it was installed from.
        program, _, rest = command.partition(" ")
        words = f"exec {shlex.quote(sys.executable)} {'' if program == 'python' else f'-m {program} '}{rest}"
        environment = {key: os.environ[key] for key in KEPT if key in os.environ}
        environment |= member.environment | {"PYTHONPATH": str(member.code), "PYTHONUNBUFFERED": "1"}
        if member.clock:
            environment |= {"LD_PRELOAD": str(faketime()), "FAKETIME": member.clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            environment["PYTHONPATH"] = f"{MOVED_CLOCK}:{member.code}"
        member.ended_at = 0.0
        with self.log(member.name).open("ab") as log:
            member.process = _spawner.submit(
                subprocess.Popen,
                ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", words],
                cwd=member.code,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).result()
        member.starts += 1

    def _bury(self, member: Member) -> None:
        if member.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(member.process.pid, signal.SIGKILL)
            member.process.wait()


def faketime() -> Path:
    """Return libfaketime for programs with threads. Raise StackError if it is not on this machine."""
    for path in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"):
        return path
    raise StackError("the clocks of processes are moved by libfaketime; apt-get install faketime")


def _pss(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
