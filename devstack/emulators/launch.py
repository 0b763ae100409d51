"""How a test or a benchmark gets an emulator of its own: started as a process, stopped by SIGTERM, waited for."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.emulators.client import Emulator
from devstack.folder import PROJECT
from devstack.ports import free_port

_STOP_SECONDS = 30


@contextmanager
def running(folder: Path, port: int | None = None, *, plain: bool = False) -> Iterator[Emulator]:
    """Given its folder, run an emulator on a free or the given port for the length of the block.

    Entering again with the same folder is a restart: keys, bearers and the log are kept.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "devstack.emulators", "--folder", str(folder), "--port", str(port)]
    process = subprocess.Popen([*command, *(["--plain"] if plain else [])], cwd=PROJECT)
    try:
        yield Emulator(f"{'http' if plain else 'https'}://127.0.0.1:{port}", folder).wait_ready()
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
