"""Whatever is sent, the gateway answers as its OpenAPI document says, and never with a fault of its own."""

import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Gateway

pytestmark = pytest.mark.timeout(900)

COMMAND = [
    *(sys.executable, "-m", "schemathesis.cli", "run"),
    *("--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1", "--workers", "1"),
    *("--continue-on-failure", "--warnings", "off"),
]


def fuzz(gateway: Gateway, token: str, paths: str, folder: Path) -> None:
    done = subprocess.run(
        [
            *(*COMMAND, "--include-path-regex", paths, "--header", f"Authorization: Bearer {token}"),
            f"{gateway.url}/openapi.json",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_jobs_have_no_fault(gateway: Gateway, token: str, tmp_path: Path) -> None:
    fuzz(gateway, token, "^/v1/jobs/", tmp_path)


def test_the_operators_and_health_routes_have_no_fault(another: Callable[..., Gateway], tmp_path: Path) -> None:
    token = secrets.token_urlsafe()
    (tmp_path / "operations-token").write_text(token)
    (tmp_path / "operations-token").chmod(0o600)
    gateway = another(GATEWAY_OPERATIONS_TOKEN_FILE=str(tmp_path / "operations-token"), GATEWAY_REFUSALS_PER_MINUTE="1000000")
    fuzz(gateway, token, "^/(metrics|status|runbook|healthz|readyz)$", tmp_path)
