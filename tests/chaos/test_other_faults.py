"""The faults that are done to Redis and to the providers count what they hit, and wait until there is something to hit."""

import random
import socket
import threading
import time
from contextlib import closing
from types import SimpleNamespace
from typing import cast

from redis import Redis
from redis.exceptions import OutOfMemoryError

from devstack.emulators.client import Emulator
from devstack.stack import Stack
from tests.chaos.faults import broker, others, providers
from tests.chaos.faults.base import Event, Play
from tests.chaos.scene import Scene


def play_of(**scene: object) -> Play:
    return Play(cast(Scene, SimpleNamespace(**scene)), random.Random(1), threading.Event(), Event("", time.time()))


def test_a_full_redis_counts_the_writes_that_it_refused(stack: Stack, redis: Redis) -> None:
    play = play_of(stack=stack)
    fault = threading.Thread(target=broker.fill, args=(play,))
    fault.start()
    refused = 0
    while not refused:
        try:
            redis.set("key", "value")
        except OutOfMemoryError:
            refused += 1
        assert fault.is_alive()
    play.over.set()
    fault.join()
    assert play.event.bit == refused
    assert redis.set("key", "value")


def test_an_answer_that_nobody_asked_for_has_hit_nothing(emulator: Emulator) -> None:
    play = play_of(emulator=emulator)
    play.over.set()
    providers.answer("unavailable")(play)
    assert play.event.bit == 0


def test_connections_that_a_server_has_not_taken_are_seen() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        assert not others.unread(port)
        with closing(socket.create_connection(("127.0.0.1", port))):
            assert others.unread(port)
