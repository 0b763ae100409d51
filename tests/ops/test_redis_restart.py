"""Redis under deploy/redis/users.acl with its append-only file: a restart keeps what lies in transactions."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery
from kombu import Connection
from redbeat import RedBeatSchedulerEntry
from redis import Redis
from redis.exceptions import AuthenticationError

import beat_schedule
from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.redis import server as server_program
from settings import Settings
from tasks import broker
from tests.processes import wait_until
from workers.celery_config import celery_config
from workers.doctor.redis import redis
from workers.doctor.report import Host, Question, examine

PASSWORD = "of-this-test"
USERS = (PROJECT / "deploy/redis/users.acl").read_text()
QUEUE = "attachments"


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Any]:
    """Return what runs a Redis with these users and the append-only file of the one before."""
    port = free_port()

    @contextmanager
    def running(users: str = USERS) -> Iterator[int]:
        (tmp_path / "users.acl").write_text(users.replace(" on resetpass ", f" on >{PASSWORD} "))
        own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--aclfile", str(tmp_path / "users.acl")]
        command = [server_program(), *own, "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        with (tmp_path / "redis.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
            try:
                wait_until(lambda: b"Ready to accept" in (tmp_path / "redis.log").read_bytes(), "Redis was ready", 20)
                yield port
            finally:
                server.terminate()  # a kill may lose the last second, where the disk is busy

    return running


def settings(port: int) -> Settings:
    url = f"redis://workers:{PASSWORD}@127.0.0.1:{port}/0"
    return Settings.model_validate({"database_url": "mysql+pymysql://u:p@h/d", "celery_broker_url": url})


def held(port: int) -> dict[str, Any]:
    """Return the messages under way, those that wait, and what beat knows."""
    with Redis("127.0.0.1", port, username="admin", password=PASSWORD, decode_responses=True) as admin:
        hashes: Any = {key: admin.hgetall(key) for key in ("unacked", *sorted(admin.scan_iter(match="chat-workers:beat:*-*")))}
        return {**hashes, "index": admin.zrange("unacked_index", 0, -1), "waiting": admin.llen(QUEUE)}


def test_a_restart_keeps_messages_under_way_and_beats_times(start: Callable[..., Any]) -> None:
    """One message is under way, one is done, one waits: none may be lost or come back."""
    with start() as port:
        config = celery_config(settings(port))
        app = Celery(set_as_current=False)
        app.conf.update(config)
        app.redbeat_redis = broker.client(settings(port), seconds=5)  # type: ignore[attr-defined]  # as workers/app.py does
        for name in ("backups-daily", "backups-weekly"):
            entry = beat_schedule.BEAT_SCHEDULE[name]
            RedBeatSchedulerEntry(name, entry["task"], entry["schedule"], app=app).save()
        options = config["broker_transport_options"]
        with Connection(config["broker_url"], transport_options=options) as connection, connection.SimpleQueue(QUEUE) as queue:
            for number in range(3):
                queue.put({"message": number})
            queue.get(timeout=5).ack()
            queue.get(timeout=5)
            before = held(port)
            assert (len(before["unacked"]), len(before["index"]), before["waiting"], len(before)) == (1, 1, 1, 5)
            # As when a worker is killed: nothing is given back when this connection ends.
            cast(Any, queue.channel).qos._delivered.clear()
    with start() as port:
        assert held(port) == before
        assert [finding.state for finding in examine(Host(settings(port)), [Question("redis", redis)])] == ["OK"]


def test_default_can_do_everything_and_nobody_can_be_default(start: Callable[..., Any]) -> None:
    with start() as port:
        for password in (None, "", PASSWORD):
            with Redis("127.0.0.1", port, password=password) as client, pytest.raises(AuthenticationError):
                client.ping()


def test_the_doctor_says_that_a_default_without_rights_loses_messages(start: Callable[..., Any]) -> None:
    with start(USERS.replace("default off resetpass ~* &* +@all", "default off resetpass -@all")) as port:
        (finding,) = examine(Host(settings(port)), [Question("redis", redis)])
        assert finding.state == "WRONG"
        assert "a restart loses what lies in transactions" in finding.sentence
