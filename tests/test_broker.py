"""Clients of Redis: one that hangs is asked once."""

import socket
import threading

import pytest
import redis

from settings import Settings
from tasks import broker


def test_a_redis_that_hangs_is_asked_once() -> None:
    asked = []

    def hang(listening: socket.socket) -> None:
        held = []
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            held.append(connection)
            asked.append(connection.recv(1024))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=hang, args=[listening], daemon=True).start()
        address = f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
        settings = Settings.model_validate({"database_url": "mysql+pymysql://u:p@h/d", "celery_broker_url": address})
        with broker.client(settings, seconds=0.2) as client, pytest.raises(redis.TimeoutError):
            client.ping()
        assert len(asked) == 1
        listening.shutdown(socket.SHUT_RDWR)
