"""What was measured and where: the first line of each result."""

import os
import platform
import subprocess
from pathlib import Path

from devstack.folder import PROJECT


def place() -> str:
    """Return the commit, and the machine: processor, cores, memory, kernel, load when the run began."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=True)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    machine = f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {system}, load at the start {load}"
    return f"commit {commit.stdout.strip()} on {machine}"
