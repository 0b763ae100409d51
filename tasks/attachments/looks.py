"""Look into content in a process of its own, which the kernel bounds by CPU and memory, and which ends with its worker.

No check of ours ends an expression that goes on for hours, and by Python's one lock no other scan goes on meanwhile, and no
lease is renewed. So helpers look (`archives`), as many for a process as there are cores. They have no secrets and no network:
they get the content's file, and hand back what clamd is to scan by itself.
"""

import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain
from mmap import ACCESS_READ, mmap
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from queue import Empty, LifoQueue
from typing import IO

from tasks.attachments import archives
from tasks.attachments.clamd import ClamdUnavailableError
from tasks.attachments.formats import Data
from tasks.attachments.streams import pieces
from tasks.attachments.verdicts import FaultError, Kind
from tasks.shutdown import stop_requested

CPU_SECONDS, MEMORY_BYTES = 20, 1 << 30
CLAMD_SECONDS = 30.0
"""How long clamd may take, in all, for what one look hands back."""
TICK_SECONDS, OUT_OF_MEMORY = 0.25, 99
Scan = Callable[[Iterator[bytes]], object]
"""Has clamd scan these bytes."""


class StoppedError(Exception):
    """The worker was asked to stop during the scan, or no helper was free in time; the row is given back."""


def look(file: IO[bytes], most_inside: int, scan: Scan, seconds: float) -> set[str]:
    """Return what `archives.look` does. Raise FaultError, StoppedError, ClamdUnavailableError.

    It may wait for a helper, and then take, so many seconds, beside those of `scan`, which may raise.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            helper = _free.get(timeout=TICK_SECONDS)
            break
        except Empty:
            if stop_requested() or time.monotonic() > until:
                raise StoppedError from None
    try:
        return helper.look(file, most_inside, scan, time.monotonic() + seconds)
    finally:
        _free.put(helper)


class _Helper:
    """The worker's end of a helper, which is started when it is needed. What breaks a conversation off ends it."""

    _process: "subprocess.Popen[bytes] | None" = None

    def look(self, file: IO[bytes], most_inside: int, scan: Scan, until: float) -> set[str]:
        kept = False
        try:
            if not self._process or self._process.poll() is not None:
                self._end()
                self._start(until)
            send_handle(self._connection, file.fileno(), None)
            self._connection.send_bytes(b"%d" % most_inside)
            while (answer := self._received(until)) == b"scan":
                began_at, chunks = time.monotonic(), iter(partial(self._received, until), b"")
                scan(chunks)
                deque(chunks, 0)  # clamd may have wanted less
                until += time.monotonic() - began_at
                self._connection.send_bytes(b"scanned")
            kept, fault, *told = json.loads(answer)
        except (EOFError, ConnectionError):
            self._end()
            raise self._broken_off() from None
        finally:
            if not kept:
                self._end()
        if fault:
            raise FaultError(Kind(fault), *told)
        return set(told)

    def _start(self, until: float) -> None:
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        command = [sys.executable, "-m", "tasks.attachments.looks", str(CPU_SECONDS), str(MEMORY_BYTES)]
        try:
            with theirs:  # from its stdin there is nothing to be read but the end, with this process's
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=theirs.fileno(), env={"TMPDIR": tempfile.gettempdir()}
                )
            self._received(until)
        except (EOFError, OSError):
            raise ClamdUnavailableError("the process that looks into content does not start") from None

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._connection.close()

    def _broken_off(self) -> Exception:
        assert self._process  # noqa: S101 - a conversation was under way
        if stop_requested():
            return StoppedError()
        status = self._process.returncode
        bound = {-signal.SIGXCPU: f"{CPU_SECONDS} s of CPU", OUT_OF_MEMORY: f"{MEMORY_BYTES >> 20} MiB of memory"}.get(status)
        if bound:
            return FaultError(Kind.OVER_LIMIT, f"more in it than can be looked through in {bound}")
        return FaultError(Kind.FAILED, f"the look into it broke off, with status {status}")

    def _received(self, until: float) -> bytes:
        while not self._connection.poll(TICK_SECONDS):
            if stop_requested():
                raise StoppedError
            if time.monotonic() > until:
                raise FaultError(Kind.FAILED, "the look into it did not come to an end")
        return self._connection.recv_bytes()


_free: LifoQueue[_Helper] = LifoQueue()
for _ in os.sched_getaffinity(0):
    _free.put(_Helper())


def main(cpu_seconds: int, memory_bytes: int) -> None:
    """Be a helper."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # of a supervisor, to all processes
        signal.signal(number, signal.SIG_IGN)
    # SIGIO comes with the end of the worker, and ends this process whatever it is at.
    fcntl.fcntl(sys.stdin, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sys.stdin, fcntl.F_SETFL, os.O_ASYNC)
    with suppress(OSError):  # what the kernel ends first where memory is short
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    worker, memory = Connection(sys.stdout.fileno()), os.open("/proc/self/statm", os.O_RDONLY)

    def scan(data: Data) -> None:
        for part in chain([b"scan"], pieces(data, 0, len(data)), [b""]):
            worker.send_bytes(part)
        worker.recv_bytes()

    worker.send_bytes(b"ready")
    with suppress(EOFError, ConnectionError):
        while True:
            with os.fdopen(recv_handle(worker), "rb") as file:
                answer = _answer(file, int(worker.recv_bytes()), scan, cpu_seconds)
            held = int(os.pread(memory, 200, 0).split()[5]) * resource.getpagesize()
            # Else it is ended: the next content shall have the memory.
            worker.send_bytes(json.dumps([held < memory_bytes // 4, *answer]).encode())


def _answer(file: IO[bytes], most_inside: int, scan: Callable[[Data], object], cpu_seconds: int) -> list[str]:
    """Return an empty text and the types, or a fault and its reason."""
    until = int(time.process_time()) + 1 + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    try:
        with mmap(file.fileno(), 0, access=ACCESS_READ) if os.fstat(file.fileno()).st_size else nullcontext(b"") as data:
            return ["", *archives.look(data, most_inside, scan)]
    except FaultError as fault:
        return [fault.kind, str(fault)]
    except OSError as error:
        return [Kind.STORAGE, f"the temporary folder takes no more: {error.strerror}"]
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
