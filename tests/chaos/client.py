"""A client of the API's kind: a thread with a connection of its own that goes on after whatever befalls the services."""

import threading
import time
from contextlib import suppress
from typing import Any, ClassVar

import pymysql
from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from pymysql.cursors import Cursor
from redis.exceptions import RedisError
from sqlalchemy import make_url

from db.engine import Connection

# An API gives up on a statement or a message sooner than a worker.
DATABASE_SECONDS = 10
BROKER_SECONDS = 2
# Of the messages for the workers; the others go to Redis.
BY_GATEWAY = 0.5


class Client(threading.Thread):
    """Calls `step` each `seconds` until it is ended. A step that fails at the database is counted, and the next one tried."""

    seconds: ClassVar[float] = 0.25

    def __init__(self, name: str, database_url: str, broker_url: str) -> None:
        super().__init__(name=name, daemon=True)
        self.failed = 0
        self._url = make_url(database_url)
        self._api = Celery(broker=broker_url, set_as_current=False)
        timeouts = {"socket_timeout": BROKER_SECONDS, "socket_connect_timeout": BROKER_SECONDS}
        self._api.conf.update(broker_transport_options=timeouts, broker_connection_retry=False)
        self._over = threading.Event()
        self._connection: pymysql.Connection[Cursor] | None = None

    def step(self, cursor: Cursor) -> None:
        """Do one piece of work, in autocommit."""
        raise NotImplementedError

    def run(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            try:
                self.step(self.cursor())
            except (pymysql.Error, OSError):
                self.failed += 1
                self._forget()
            # What was due meanwhile is left out: nobody types faster because the service was away.
            due = max(due + self.seconds, time.monotonic())
            self._over.wait(due - time.monotonic())
        self._forget()

    def end(self) -> None:
        self._over.set()

    def send(self, task: str, *arguments: Any, expires: float | None = 60) -> bool:
        """Send a task by its name; return False if Redis does not take it, which an API would not wait for either."""
        try:
            self._api.send_task(
                task, args=arguments, queue=QUEUES[task.split(".")[1]], expires=expires, ignore_result=True, retry=False
            )
        except (BrokerError, RedisError, OSError):
            return False
        return True

    def cursor(self) -> Cursor:
        """Return a cursor of this client's connection, made anew if it was lost."""
        if self._connection is None:
            self._connection = connect(self._url)
        return self._connection.cursor()

    def _forget(self) -> None:
        if self._connection is not None:
            with suppress(pymysql.Error, OSError):
                self._connection.close()
            self._connection = None


QUEUES = {
    "notifications": "notifications",
    "attachments": "attachments",
    "typing_indicators": "housekeeping",
    "retention": "housekeeping",
    "backups": "backups",
}


def connect(url: Any) -> "pymysql.Connection[Cursor]":
    """Return a connection as the API has it: UTC, in autocommit."""
    return Connection(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        database=url.database,
        autocommit=True,
        connect_timeout=DATABASE_SECONDS,
        read_timeout=DATABASE_SECONDS,
        write_timeout=DATABASE_SECONDS,
        init_command="SET SESSION time_zone = '+00:00', lock_wait_timeout = 5, innodb_lock_wait_timeout = 5",
    )
