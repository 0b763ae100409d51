"""The pictures of the README, made by the demo itself: its terminal, and its status page in both colours."""

import subprocess
import tempfile
from pathlib import Path

from devstack.demo.screen import Screen
from devstack.programs import find

WIDTH, HEIGHT = 1200, 720
# Chromium's own number of each scheme.
SCHEMES = {"status": 1, "status-dark": 0}
SECONDS = 60


def take(screen: Screen, status: str, into: Path) -> None:
    """Write demo.svg, status.png and status-dark.png. Raise StackError if there is no Chromium."""
    (into / "demo.svg").write_text(screen.picture("make demo"))
    for name, scheme in SCHEMES.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = [
                find("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}",
                f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={into / name}.png", status,
            ]  # fmt: skip
            subprocess.run(command, check=True, timeout=SECONDS, capture_output=True)
