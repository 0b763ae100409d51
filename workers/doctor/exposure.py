"""What is open to others: addresses that processes listen on, a Redis without a password, a readable .env."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from workers.doctor.report import Finding, Question, ok, wrong

LOOPBACK = {"127.0.0.1", "::1", "localhost", ""}
FLOWER_LOGINS = ("FLOWER_BASIC_AUTH", "FLOWER_AUTH", "FLOWER_AUTH_PROVIDER")


def exposure(question: Question) -> Iterator[Finding]:
    """Find out who else can reach what."""
    settings = question.settings
    found = [*_flower(), *_redis(settings.celery_broker_url), *_environment_file(Path(".env"))]
    yield from found
    if settings.gateway_address not in LOOPBACK:
        yield ok("gateway", f"listens on {settings.gateway_address}:{settings.gateway_port}: let a firewall say who reaches it")
    if not found:
        yield ok("exposure", "Flower and Redis are not open to others")


def _flower() -> Iterator[Finding]:
    address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
    if address not in LOOPBACK and not any(os.environ.get(name) for name in FLOWER_LOGINS):
        yield wrong(
            "flower", f"FLOWER_ADDRESS is {address} without a login: anyone there can end workers; set FLOWER_BASIC_AUTH"
        )


def _redis(url: str) -> Iterator[Finding]:
    first = urlsplit(url.split(";")[0])
    if (first.hostname or "") not in LOOPBACK and not first.password:
        yield wrong(
            "redis login",
            f"CELERY_BROKER_URL has no password for {first.hostname}: who writes to Redis can start any task; use an ACL user",
        )


def _environment_file(path: Path) -> Iterator[Finding]:
    if path.exists() and path.stat().st_mode & stat.S_IRWXO:
        yield wrong("secrets", f"{path.resolve()} may be read by every user of this host; run: chmod 600 {path}")
