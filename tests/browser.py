"""A headless Chromium and its driver, reached by address: where there is no /etc/hosts, `localhost` has none."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.utils import is_url_connectable

from devstack.programs import ensure, find

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run")
START_SECONDS = 60


class _Driver(ChromeService):
    """chromedriver on loopback; what it says is not shown."""

    def __init__(self) -> None:
        super().__init__(find("chromedriver"), log_output=os.devnull)

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_connectable(self) -> bool:
        return bool(is_url_connectable(self.port, "127.0.0.1"))


@contextmanager
def chromium(*arguments: str, logs: tuple[str, ...] = ("browser",)) -> Iterator[Chrome]:
    """Run a browser for the length of the block. `logs` are what it keeps: "browser" (what pages say), "performance"."""
    ensure(["tests"])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, _running(Path(profile), arguments) as address:
        options = ChromeOptions()
        # A browser that the driver starts itself is asked at `localhost`.
        options.debugger_address = address
        options.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
        with Chrome(options, _Driver()) as browser:
            yield browser


@contextmanager
def _running(profile: Path, arguments: tuple[str, ...]) -> Iterator[str]:
    """Run Chromium; yield where its debugger listens."""
    process = subprocess.Popen(
        [find("chromium"), *ARGUMENTS, *arguments, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield f"127.0.0.1:{_port(process, profile / 'DevToolsActivePort')}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _port(process: "subprocess.Popen[bytes]", said: Path) -> str:
    """Return the port that Chromium has chosen and written into a file of its profile, with a second line behind it."""
    deadline = time.monotonic() + START_SECONDS
    while not said.exists() or "\n" not in (words := said.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"Chromium did not start: exit code {process.poll()}")
        time.sleep(0.02)
    return words.splitlines()[0]
