"""What is open to others: addresses that processes listen on, a Redis without a password, or talked to in the clear."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from settings import Settings
from workers.doctor.report import Finding, Question, ok, wrong
from workers.flower_login import login
from workers.gateway.operators import is_loopback


def exposure(question: Question) -> Iterator[Finding]:
    """Find out who else can reach what."""
    settings = question.settings
    found = [*_flower(settings), *_redis(settings.celery_broker_url)]
    yield from found
    if not is_loopback(settings.gateway_address):
        yield ok("gateway", f"listens on {settings.gateway_address}:{settings.gateway_port}: let a firewall say who reaches it")
    if not found:
        yield ok("exposure", "Flower and Redis are not open to others")


def _flower(settings: Settings) -> Iterator[Finding]:
    if not is_loopback(settings.flower_address) and login(settings) is None:
        yield wrong(
            "flower",
            f"FLOWER_ADDRESS is {settings.flower_address} and nobody could log in, so that it does not start; set"
            " FLOWER_BASIC_AUTH_FILE, or FLOWER_AUTH together with FLOWER_AUTH_PROVIDER",
        )


def _redis(url: str) -> Iterator[Finding]:
    first = urlsplit(url.split(";")[0])
    if is_loopback(first.hostname or "localhost"):
        return
    if not first.password:
        yield wrong(
            "redis login",
            f"CELERY_BROKER_URL has no password for {first.hostname}: who writes to Redis can start any task; use an ACL user",
        )
    # Sentinels know no TLS here: docs/security.md.
    if first.scheme == "redis":
        yield wrong(
            "redis TLS",
            f"{first.hostname} is talked to in the clear, the password too; use rediss:// (docs/security.md), unless nobody"
            " else is on the network in between",
        )
