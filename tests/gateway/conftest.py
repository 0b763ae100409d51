"""A real gateway process on the run's Redis, its tokens, and what it has put into the queues."""

import json
import os
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from redis import Redis

from devstack.ports import free_port
from tests.processes import PLAIN, Process, answers, python
from workers.gateway import tokens


@dataclass(frozen=True)
class Gateway:
    """A gateway that serves, and the API's side of it."""

    url: str
    tokens_file: Path
    log: Path
    environment: dict[str, str]

    def token(self, **options: Any) -> str:
        """Make a token as an operator does."""
        return tokens.issue(self.tokens_file, f"test-{uuid4().hex[:12]}", **options)

    def post(self, job: str, token: str | None, json: Any = None, **options: Any) -> httpx.Response:
        headers = httpx.Headers(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx.post(f"{self.url}/v1/jobs/{job}", headers=headers, json=json, timeout=20, **options, verify=PLAIN)


@contextmanager
def serving(environment: dict[str, str], folder: Path, **changes: str) -> Iterator[Gateway]:
    """Start the gateway as the Procfile does, and end it with SIGTERM."""
    port, file, log = free_port(), folder / "tokens", folder / "gateway.log"
    gateway = {"GATEWAY_PORT": str(port), "GATEWAY_TOKENS_FILE": str(file), "ATTACHMENTS_URL": "file:///srv/uploads"}
    gateway["PUSH_APPS_FILE"] = "/srv/apps.toml"  # which the gateway never reads
    own = {**environment, **gateway, **changes}
    url = f"http://127.0.0.1:{port}"
    process = Process(python("workers.gateway"), {**os.environ, **own}, log).start()
    try:
        process.wait_until(lambda: answers(f"{url}/healthz"), "the gateway answered")
        yield Gateway(url, file, log, own)
    finally:
        process.stop()


@pytest.fixture(scope="session")
def shared_gateway(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with serving(environment, folder, GATEWAY_REFUSALS_PER_MINUTE="1000000") as gateway:
        gateway.token()
        yield gateway


@pytest.fixture
def gateway(shared_gateway: Gateway, redis: Redis) -> Gateway:
    """The gateway that all tests share, before an empty Redis."""
    return shared_gateway


@pytest.fixture
def token(gateway: Gateway) -> str:
    return gateway.token()


@pytest.fixture
def another(environment: dict[str, str], redis: Redis, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Start a gateway of one's own, with other variables."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(serving(environment, tmp_path, **changes))


@dataclass(frozen=True)
class Queue:
    """One of the lists that workers take messages from."""

    redis: Redis
    name: str

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages, the next one first."""
        found = [json.loads(each) for each in reversed(self.redis.lrange(self.name, 0, -1))]
        return [message for message in found if message]

    def calls(self) -> list[tuple[str, list[Any]]]:
        """Return (task, arguments) of each message, the next one first."""
        return [(each["headers"]["task"], json.loads(b64decode(each["body"]))[0]) for each in self.messages()]

    def take(self) -> None:
        """Take a message, as a worker does."""
        assert self.redis.rpop(self.name)


@pytest.fixture
def notifications(redis: Redis) -> Queue:
    return Queue(redis, "notifications")


@pytest.fixture
def attachments(redis: Redis) -> Queue:
    return Queue(redis, "attachments")
