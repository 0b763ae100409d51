"""One real worker for all cases of a module, and a way to wait for a task's end that is no sleep."""

import json
import os
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery
from redis import Redis
from redis.client import PubSub

from devstack.stack import Stack
from tests.messages import samples
from tests.processes import Process, python


@pytest.fixture(scope="session")
def app(environment: dict[str, str]) -> "Celery[Any]":
    """The workers' app, with all its tasks."""
    from workers.app import app

    app.loader.import_default_modules()
    return app


class Worker(Process):
    """A `celery worker` of the queues `housekeeping` and `attachments`, and what it says of the tasks it ran."""

    def __init__(self, environment: dict[str, str], redis: Redis, log: Path) -> None:
        command = f"celery -A workers.app worker -Q {samples.QUEUE},attachments -n {log.stem}@test -c 1"
        super().__init__(python(f"{command} --without-gossip --without-mingle"), {**os.environ, **environment}, log)
        self.redis = redis
        self.listen()
        self.ended: dict[str, str] = {}
        self.start().wait_ready()

    def listen(self) -> None:
        """Hear of the tasks that end from now on; again after Redis was away."""
        self.events: PubSub = self.redis.pubsub()  # type: ignore[no-untyped-call]
        self.events.psubscribe("/0.celeryev/task.*")

    def push(self, element: object, queue: str = samples.QUEUE) -> None:
        """Put an element behind all others of the queue."""
        self.redis.lpush(queue, samples.raw(element))

    def run(self, message: dict[str, Any] | None = None) -> None:
        """Push a good message and wait until its task has ended well."""
        message = message or samples.good()
        self.push(message)
        self.wait_for(message["headers"]["id"])

    def wait_for(self, task_id: str) -> None:
        """Wait for the event that the worker sends when a task has succeeded."""

        def has_ended() -> bool:
            said = cast(dict[str, Any] | None, self.events.get_message(ignore_subscribe_messages=True, timeout=1))
            if said and said["channel"] == b"/0.celeryev/task.multi":
                for event in json.loads(b64decode(json.loads(said["data"])["body"])):
                    if event["type"] in {"task-succeeded", "task-failed"}:
                        self.ended[event["uuid"]] = event["type"]
            return task_id in self.ended

        if task_id not in self.ended:
            self.wait_until(has_ended, f"the task {task_id} had ended", every=0)
        assert self.ended[task_id] == "task-succeeded"


@pytest.fixture(scope="module")
def broker(stack: Stack) -> Iterator[Redis]:
    """A Redis that is empty at the module's first test."""
    with Redis.from_url(stack.redis.url) as client:
        client.flushdb()
        yield client


@pytest.fixture(scope="module")
def worker(environment: dict[str, str], broker: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all tests of the module: what stops it fails the tests after."""
    worker = Worker(environment, broker, tmp_path_factory.mktemp("messages") / "worker.log")
    yield worker
    worker.kill()
