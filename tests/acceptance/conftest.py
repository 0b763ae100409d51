"""Real worker processes: started as an operator starts them, ended by signals."""

from collections.abc import Callable

import pytest
from celery import Celery
from redis import Redis
from sqlalchemy import Engine

from devstack.chat import conversation_pairs, enqueue, load_chat
from devstack.emulators.client import Emulator
from tests.processes import Process, Start

# A worker alone has nobody to talk to.
QUIET = "--without-gossip --without-mingle"


@pytest.fixture
def start_worker(start: Start, redis: Redis) -> Callable[..., Process]:
    """Start workers of the notifications queue that are gone after the test."""

    def start_one(name: str = "worker", processes: int = 2, *, wait: bool = True) -> Process:
        worker = start(f"celery -A workers.app worker -Q notifications -n {name}@test -c {processes} {QUIET}", name)
        return worker.wait_ready() if wait else worker

    return start_one


Send = Callable[..., None]


@pytest.fixture
def send(environment: dict[str, str]) -> Send:
    """Send a task by name, as an API that shares no code with the workers does."""
    producer = Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False)

    def by_name(task: str, *args: object, expires: float | None = None) -> None:
        producer.send_task(task, args=args, queue=task.split(".")[1], expires=expires, ignore_result=True)

    return by_name


@pytest.fixture
def nudge(send: Send) -> Callable[[], None]:
    """What the API does after its commit."""
    return lambda: send("tasks.notifications.drain")


@pytest.fixture
def tick(send: Send) -> Callable[[], None]:
    """What beat does, whenever the test wants it."""

    def all_of_them() -> None:
        for task in ("drain", "retry_failed", "adopt"):
            send(f"tasks.notifications.{task}", expires=5)

    return all_of_them


@pytest.fixture
def load(chat: Engine, emulator: Emulator) -> Callable[[int], None]:
    """Add so many PENDING rows of one to three devices each, all of them wanted."""

    def add(rows: int) -> None:
        with chat.begin() as connection:
            pairs = conversation_pairs(connection)
            if pairs:
                # A row's message has its id; those of the API's own rows have what the server gives them.
                highest = "SELECT GREATEST((SELECT MAX(id) FROM chat_notifications), (SELECT MAX(id) FROM messages))"
                enqueue(connection, pairs, rows, first=connection.exec_driver_sql(highest).scalar_one() + 1)
            else:
                load_chat(connection, users=200, conversations=300, notifications=rows, quiet=0, bad_tokens=0)

    return add
