"""deploy/redis/users.acl: the API can add messages and do nothing else, and the workers lack nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.redis import server as server_program
from tests.messages import samples
from tests.messages.conftest import Worker
from tests.messages.test_transports import until_it_answers
from workers.operations import queues

USERS = PROJECT / "deploy" / "redis" / "users.acl"
PASSWORD = "of-this-test"
# One of the two that the API may add to.
QUEUE = "attachments"


@dataclass(frozen=True)
class Guarded:
    """A Redis with these users and nothing else."""

    port: int

    def url(self, user: str) -> str:
        return f"redis://{user}:{PASSWORD}@127.0.0.1:{self.port}/0"

    def client(self, user: str) -> Redis:
        return Redis.from_url(self.url(user))

    def denied(self) -> list[Any]:
        """Return what was refused since the log was last emptied."""
        with self.client("admin") as redis:
            found = cast(list[dict[str, Any]], redis.acl_log())
            redis.acl_log_reset()
        return [(entry["username"], entry["reason"], entry["object"]) for entry in found]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder, port = tmp_path_factory.mktemp("acl"), free_port()
    users = folder / "users.acl"
    users.write_text(USERS.read_text().replace(" on resetpass ", f" on >{PASSWORD} "))
    command = [server_program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    guarded = Guarded(port)
    with subprocess.Popen([*command, "--aclfile", str(users)], stdout=subprocess.DEVNULL) as server:
        with guarded.client("admin") as redis:
            until_it_answers(redis.ping)
        yield guarded
        server.kill()


def test_nobody_gets_in_before_a_password_is_set(tmp_path: Path) -> None:
    lines = USERS.read_text().splitlines()
    assert all(" resetpass " in line and ">" not in line and "nopass" not in line for line in lines)
    assert lines[0] == "user default off resetpass ~* &* +@all"


@pytest.mark.parametrize(
    "command",
    [
        ("LRANGE", QUEUE, "0", "-1"),
        ("RPOP", QUEUE),
        ("DEL", QUEUE),
        ("SET", QUEUE, "x"),
        ("SADD", QUEUE, "x"),  # a queue of another type stops every worker
        ("LPUSH", "_kombu.binding.housekeeping", "x"),
        ("SADD", "_kombu.binding_deadlines", "x"),  # kombu's, of another type: no worker would get ready
        ("SADD", "_kombu.binding.reply.celery.pidbox", "x"),  # nor answer `inspect`
        ("LPUSH", "housekeeping", "x"),
        ("LPUSH", "backups", "x"),
        ("LPUSH", "unacked", "x"),
        ("HSET", "unacked", "x", "x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("SUBSCRIBE", "/0.celeryev/*"),
        ("XADD", "chat-workers:messages:rejected", "*", "x", "x"),
        ("HGETALL", "chat-workers:beat::schedule"),
        ("EVAL", "return 1", "0"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("CLIENT", "TRACKING", "ON", "BCAST"),
        ("SHUTDOWN",),
    ],
    ids=lambda command: " ".join(command[:2]),
)
@pytest.mark.parametrize("user", ["api", "api-celery"])
def test_the_api_reads_nothing_removes_nothing_and_commands_no_worker(
    guarded: Guarded, user: str, command: tuple[str, ...]
) -> None:
    with (
        guarded.client(user) as redis,
        pytest.raises((NoPermissionError, ResponseError), match=r"(?i)no permissions|can.t run"),
    ):
        redis.execute_command(*command)


def test_the_workers_cannot_empty_or_configure_redis(guarded: Guarded) -> None:
    with guarded.client("workers") as redis:
        for command in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SHUTDOWN",), ("GET", "another-app")):
            with pytest.raises(NoPermissionError):
                redis.execute_command(*command)


@pytest.mark.usefixtures("chat")
def test_a_worker_serves_the_api_and_nothing_it_does_is_denied(
    guarded: Guarded, environment: dict[str, str], tmp_path: Path
) -> None:
    own = {**environment, "CELERY_BROKER_URL": guarded.url("workers"), "ATTACHMENTS_URL": f"file://{tmp_path}"}
    guarded.denied()
    with guarded.client("admin") as admin, guarded.client("api") as api:
        worker = Worker(own, admin, tmp_path / "worker.log")
        try:
            api.lpush(QUEUE, samples.raw(samples.scan()))
            good = samples.scan(1)  # no such row: nothing to do
            api.lpush(QUEUE, samples.raw(good))
            worker.wait_for(good["headers"]["id"])
            # Celery prefers the variable CELERY_BROKER_URL to its argument `broker`.
            with Celery(set_as_current=False) as producer, producer.connection(guarded.url("api-celery")) as way:
                sent = producer.send_task("tasks.attachments.scan", [1], queue=QUEUE, ignore_result=True, connection=way)
            worker.wait_for(sent.id)
            with guarded.client("api-celery") as producer:  # what kombu would fail on, or send a scan to the backups for
                producer.sadd(f"_kombu.binding.{QUEUE}", "x", b"\xff", f"{QUEUE}\x06\x16\x06\x16backups")
            for arguments in (
                ["celery", "-A", "workers.app", "inspect", "ping", "-d", "worker@test", "-t", "20"],
                ["workers.cli", "messages", "discard", "--all"],
                ["workers.cli", "schedule", "run", "typing-indicators-expire"],
                ["workers.cli", "schedule", "run", "attachments-sweep"],
            ):
                _run(arguments, own)
            assert not admin.exists("backups")
        finally:
            worker.kill()
    assert guarded.denied() == []


def test_the_workers_see_messages_that_name_no_queue_and_nothing_beside_them(
    guarded: Guarded, environment: dict[str, str]
) -> None:
    """kombu keeps a list for each priority."""
    guarded.denied()
    lists = ["celery", *(f"celery\x06\x16{step}" for step in (3, 6, 9))]
    with guarded.client("admin") as admin, guarded.client("workers") as redis:
        for name in lists:
            admin.lpush(name, samples.raw(samples.good()))
        seen = {row["queue"]: row["queue_messages"] for row in queues.TABLES[0].rows(redis)}
        assert guarded.denied() == []
        assert seen["celery"] == len(lists)
        for refused in (("LPUSH", lists[1], "x"), ("LLEN", "celeryish"), ("LLEN", "celery-9"), ("LLEN", "celery\x06\x163x")):
            with pytest.raises(NoPermissionError):
                redis.execute_command(*refused)
        admin.delete(*lists)


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    module, *rest = arguments
    start = (
        [sys.executable, "-m", module] if module == "celery" else [sys.executable, "-c", f"from {module} import main; main()"]
    )
    ended = subprocess.run(
        [*start, *rest], env={**os.environ, **environment}, cwd=PROJECT, capture_output=True, text=True, timeout=99, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
