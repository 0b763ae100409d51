"""Whatever is sent, the gateway answers as its OpenAPI document says, and never with a fault of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Gateway

COMMAND = [
    *(sys.executable, "-m", "schemathesis.cli", "run"),
    *("--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1", "--workers", "1"),
    *("--include-path-regex", "^/v1/jobs/", "--continue-on-failure", "--warnings", "off"),
]


@pytest.mark.timeout(240)
def test_schemathesis_finds_no_fault(gateway: Gateway, token: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "--header", f"Authorization: Bearer {token}", f"{gateway.url}/openapi.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
