"""sentinel://: the master dies, a replica is promoted, and beat and a worker go on without anyone's doing."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from kombu import Connection
from redis import Redis
from sqlalchemy import Engine, text

from devstack.ports import free_port
from devstack.probe import tcp_answer
from devstack.redis import server as server_program
from settings import Settings, get_settings, parse_broker
from tasks import broker
from tests.processes import Process, wait_until
from workers.celery_config import celery_config

MASTER = "chat"
PASSWORD = "of-redis"
SENTINEL_PASSWORD = "of-sentinel"


@dataclass(frozen=True)
class Failover:
    """A master with a replica, and a sentinel that may promote it alone."""

    master: "subprocess.Popen[bytes]"
    ports: tuple[int, int]
    sentinel: int

    @property
    def environment(self) -> dict[str, str]:
        # The second address is a sentinel that is away.
        return {
            "CELERY_BROKER_URL": f"sentinel://:{PASSWORD}@127.0.0.1:{self.sentinel};sentinel://127.0.0.1:{free_port()}/0",
            "REDIS_SENTINEL_MASTER": MASTER,
            "REDIS_SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }


@pytest.fixture
def failover(tmp_path: Path) -> Iterator[Failover]:
    """Redis's own sentinel and two servers, as small as it gets."""
    first, second, sentinel = free_port(), free_port(), free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {sentinel}\nbind 127.0.0.1\ndir {tmp_path}\nrequirepass {SENTINEL_PASSWORD}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {first} 1\nsentinel auth-pass {MASTER} {PASSWORD}\n"
        f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 2000\n"
    )
    with ExitStack() as running, (tmp_path / "redis.log").open("wb") as log:

        def start(*arguments: str) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen([server_program(), *arguments], stdout=log, stderr=log, cwd=tmp_path)
            running.callback(process.wait)
            running.callback(process.kill)
            return process

        both = ["--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD, "--masterauth", PASSWORD]
        master = start("--port", str(first), *both)
        start("--port", str(second), "--replicaof", "127.0.0.1", str(first), "--repl-diskless-sync-delay", "0", *both)
        for port in (first, second):
            wait_until(lambda port=port: b"NOAUTH" in tcp_answer(port, b"PING\r\n"), "Redis answered")  # type: ignore[misc]
        with Redis(host="127.0.0.1", port=second, password=PASSWORD) as replica:
            wait_until(lambda: replica.info()["master_link_status"] == "up", "the replica followed")
        start(str(configuration), "--sentinel")
        with Redis(host="127.0.0.1", port=sentinel, password=SENTINEL_PASSWORD) as asked:
            wait_until(lambda: bool(tcp_answer(sentinel, b"PING\r\n")), "the sentinel answered")
            wait_until(lambda: len(asked.sentinel_slaves(MASTER)) == 1, "the sentinel knew the replica")
        yield Failover(master, (first, second), sentinel)


@pytest.mark.timeout(900)
def test_a_worker_and_beat_survive_a_failover_of_the_master(
    failover: Failover,
    chat: Engine,
    start_worker: Callable[..., Process],
    start_beat: Callable[..., Process],
    load: Callable[[int], None],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in failover.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.model_validate({name.lower(): value for name, value in {**environment, **failover.environment}.items()})
    with broker.client(settings) as client:
        assert client.info()["role"] == "master"
    worker = start_worker()
    beat = start_beat(BEAT_TEST_SCHEDULE="real")
    load(20)
    wait_until(lambda: sent(chat) == 20, "beat and the worker sent the rows")
    failover.master.kill()
    failover.master.wait()
    load(20)
    wait_until(lambda: sent(chat) == 40, "they went on with the promoted replica")
    assert worker.runs
    assert beat.runs


def test_what_is_told_of_the_sentinels(environment: dict[str, str]) -> None:
    url = "sentinel://chat:se%40cret@one:26380;sentinel://two/3"
    config = celery_config(get_settings().model_copy(update={"celery_broker_url": url}))
    assert config["broker_url"] == url
    assert config["broker_transport_options"]["master_name"] == "mymaster"
    assert parse_broker(url) == ("sentinel", [("one", 26380), ("two", 26379)], "chat", "se@cret", 3, {})


@dataclass
class Hanging:
    """A sentinel that accepts connections and never answers; it counts them."""

    port: int
    accepted: int = 0


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    with ExitStack() as open_ones, socket.create_server(("127.0.0.1", 0)) as listening:
        hanging = Hanging(listening.getsockname()[1])

        def accept() -> None:
            with suppress(OSError):
                while True:
                    open_ones.enter_context(listening.accept()[0])
                    hanging.accepted += 1

        thread = Thread(target=accept)
        thread.start()
        yield hanging
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("by", ["client", "kombu"])
def test_a_sentinel_that_hangs_is_asked_once_and_the_next_one_instead(
    failover: Failover, environment: dict[str, str], hanging: Hanging, by: str
) -> None:
    url = f"sentinel://:{PASSWORD}@127.0.0.1:{hanging.port};sentinel://127.0.0.1:{failover.sentinel}/0"
    changed = {**environment, **failover.environment, "CELERY_BROKER_URL": url}
    settings = Settings.model_validate({name.lower(): value for name, value in changed.items()})
    config = celery_config(settings)
    with ExitStack() as opened:
        if by == "client":
            assert opened.enter_context(broker.client(settings)).ping()
        else:
            options = config["broker_transport_options"]
            connection = opened.enter_context(Connection(url, transport_options=options))
            channel: Any = connection.default_channel
            assert channel.client.ping()
    # kombu has two pools, each with sentinels of its own.
    assert hanging.accepted <= (2 if by == "kombu" else 1)


def sent(engine: Engine) -> int:
    with engine.connect() as connection:
        statement = text("SELECT COUNT(*) FROM chat_notifications WHERE delivery_status = 'SENT'")
        return int(connection.execute(statement).scalar_one())
