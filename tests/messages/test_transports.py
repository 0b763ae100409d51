"""Messages are read whichever way CELERY_BROKER_URL leads to Redis: plain, over TLS, by Sentinel."""

from collections.abc import Callable, Iterator
from subprocess import DEVNULL, Popen
from time import monotonic
from typing import Any

import pytest
from celery import Celery
from kombu import Consumer
from redis import Redis
from redis.exceptions import ConnectionError as NotYetError
from redis.sentinel import MasterNotFoundError, Sentinel

from devstack.emulators.certificates import ensure_certificates
from devstack.ports import free_port
from devstack.programs import find
from devstack.stack import Stack
from tests.messages import samples
from workers.messages import rejected
from workers.messages.transport import ReadingConnection

START_SECONDS = 20


def until_it_answers(asked: Callable[[], Any]) -> None:
    deadline = monotonic() + START_SECONDS
    while monotonic() < deadline:
        try:
            asked()
        except (NotYetError, MasterNotFoundError):
            continue
        return
    pytest.fail("it never answered")


@pytest.fixture(scope="module")
def over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis that speaks TLS only, with the certificate that vouches for it."""
    folder, port = tmp_path_factory.mktemp("tls"), free_port()
    certificate, key = ensure_certificates(folder)
    options = {"port": "0", "tls-port": str(port), "tls-cert-file": str(certificate), "tls-key-file": str(key)}
    options |= {"tls-auth-clients": "no", "save": "", "bind": "127.0.0.1", "dir": str(folder)}
    command = [find("redis-server"), *(part for name, value in options.items() for part in (f"--{name}", value))]
    url = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={folder}/ca.pem"
    with Popen(command, stdout=DEVNULL) as server:
        with Redis.from_url(url) as client:
            until_it_answers(client.ping)
        yield url
        server.kill()


@pytest.fixture(scope="module")
def by_sentinel(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Sentinel that watches the stack's Redis as `chat`."""
    folder, port = tmp_path_factory.mktemp("sentinel"), free_port()
    config = folder / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor chat 127.0.0.1 {stack.redis.port} 1\n")
    with Popen([find("redis-server"), str(config), "--sentinel"], stdout=DEVNULL) as server:
        sentinel = Sentinel([("127.0.0.1", port)])  # type: ignore[no-untyped-call]
        until_it_answers(lambda: sentinel.discover_master("chat"))  # type: ignore[no-untyped-call]
        yield f"sentinel://127.0.0.1:{port}/0"
        server.kill()


@pytest.mark.parametrize("way", ["plain", "over_tls", "by_sentinel"])
def test_bad_messages_are_kept_and_good_ones_consumed(
    app: "Celery[Any]", stack: Stack, request: pytest.FixtureRequest, way: str
) -> None:
    url = stack.redis.url if way == "plain" else request.getfixturevalue(way)
    received: list[str] = []

    def receive(_body: object, message: Any) -> None:
        received.append(message.headers["id"])
        message.ack()

    good = samples.good()
    with ReadingConnection(url, transport_options={"master_name": "chat"}) as connection:
        channel: Any = connection.default_channel
        redis: Redis = channel.client
        redis.flushdb()
        for element in (samples.without("headers", "task"), b"{", good):
            redis.lpush(samples.QUEUE, samples.raw(element))
        with Consumer(connection, [app.amqp.queues[samples.QUEUE]], callbacks=[receive], accept=["json"]):
            while not received:
                connection.drain_events(timeout=START_SECONDS)
        assert received == [good["headers"]["id"]]
        assert [kept["defect"] for kept in rejected.kept(redis)] == ["json", "task"]
        assert redis.hlen("unacked") == 0


def test_a_connection_that_redis_left_while_a_message_was_out_is_closed(app: "Celery[Any]", stack: Stack) -> None:
    """What a worker's main process does when its broker is gone; an error other than the connection's ends the process."""
    received: list[Any] = []
    connection = ReadingConnection(stack.redis.url)
    channels: list[Any] = [connection.default_channel, connection.channel()]
    channels[0].client.lpush(samples.QUEUE, samples.raw(samples.good()))
    for channel, queue in zip(channels, (samples.QUEUE, "backups"), strict=True):
        receive = [lambda _body, message: received.append(message)]
        Consumer(channel, [app.amqp.queues[queue]], callbacks=receive, accept=["json"]).consume()
    while not received:
        connection.drain_events(timeout=START_SECONDS)
    with pytest.raises(TimeoutError):  # nothing more comes, and both ask for more
        connection.drain_events(timeout=0.1)
    stack.redis.kill()
    try:
        connection.collect(socket_timeout=1)
        connection.close()
    finally:
        stack.redis.start()
    assert [channel.closed for channel in channels] == [True, True]
