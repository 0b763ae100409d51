"""The faults that are done to the database bite, and hinder the API only where they say so."""

import random
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import Engine

from devstack.chat import conversation_pairs, load_chat
from devstack.stack import Stack
from tests.chaos.faults import database
from tests.chaos.faults.base import Event, Play
from tests.chaos.pushes import Pushes
from tests.chaos.scene import Scene


@pytest.fixture
def pushes(chat: Engine, environment: dict[str, str]) -> Pushes:
    """The API's client, with some rows written."""
    with chat.begin() as connection:
        load_chat(connection, users=100, conversations=100, notifications=0)
        pairs = conversation_pairs(connection)
    broker = environment["CELERY_BROKER_URL"]
    pushes = Pushes(environment["DATABASE_URL"], broker, "https://127.0.0.1:1", pairs, rate=800, seed=1)
    pushes.step(pushes.cursor())
    return pushes


@pytest.fixture
def play(chat: Engine, stack: Stack) -> Iterator[Play]:
    over = threading.Event()
    scene = cast(Scene, SimpleNamespace(engine=chat, stack=stack))
    yield Play(scene, random.Random(1), over, Event("", time.time()))
    over.set()


def test_the_api_writes_on_while_the_newest_rows_are_locked(play: Play, pushes: Pushes) -> None:
    """A lock on the gap behind the last row would make the inserts wait."""
    fault = threading.Thread(target=database.lock_rows, args=(play,))
    fault.start()
    with play.scene.stack.mariadb.root() as cursor:
        locked = 0
        while not locked:
            cursor.execute("SELECT COALESCE(MAX(trx_rows_locked), 0) FROM information_schema.innodb_trx")
            [(locked,)] = cursor.fetchall()
            assert fault.is_alive()
            time.sleep(0.2)  # InnoDB shows what it has shown before to whoever asks ten times a second
    before = pushes.written.rows
    pushes.insert(pushes.cursor(), 50)
    assert pushes.written.rows == before + 50
    assert fault.is_alive()
    play.over.set()
    fault.join()


def test_deadlocks_come_about(play: Play, pushes: Pushes) -> None:
    database.deadlock(play)
    assert play.event.bit


def test_connections_are_refused(play: Play) -> None:
    database.exhaust_connections(play)
    assert play.event.bit


def test_writes_are_refused(play: Play) -> None:
    database.read_only(play)
    assert play.event.bit


def test_connections_are_cut(play: Play, pushes: Pushes) -> None:
    database.cut(play)
    assert play.event.bit
