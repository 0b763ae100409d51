"""Where the contest takes place: one stack, the same rows for everyone, and what is measured of a contestant."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from celery import Celery
from redis import Redis
from sqlalchemy import Engine, text

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.chat import conversation_pairs, enqueue, load_chat
from devstack.emulators.client import Emulator
from devstack.folder import PROJECT
from devstack.stack import Stack

USERS, CONVERSATIONS = 20_000, 20_000
CHUNK = 20_000
TICK = os.sysconf("SC_CLK_TCK")
POLL_SECONDS = 0.1
# From the start of a contestant's processes to its first message.
FIRST_SECONDS = 30
# The default quota of a minute would hold a run of a million rows back.
ENVIRONMENT = {"LOG_LEVEL": "WARNING", "NOTIFICATIONS_PER_MINUTE": "60000000"}


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to send the rows: what is queued first, then which processes are started."""

    name: str
    processes: int
    rows: int
    command: list[str]
    queue: Callable[["Field", int], None]
    copies: int = 1
    """Processes started from `command`; a Celery worker forks its own."""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What a contestant did, from its first message's arrival at the endpoint to its last row's result in MySQL."""

    name: str
    processes: int
    rows: int
    seconds: float
    cpu_ms: float
    """CPU of the contestant's own processes, in ms a row."""
    database_cpu_ms: float
    endpoint_cpu: float
    """Share of one core that the endpoint used."""
    memory_mb: float
    """Of its largest process, at most."""
    per_second: list[tuple[float, int]]
    """Messages that arrived at the endpoint in each second."""

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


class Field:
    """The stack with `rows` notifications of one device each, put back as they were before each run."""

    def __init__(self, stack: Stack, rows: int) -> None:
        self.stack = stack
        self.rows = rows
        # firebase-admin's requests trust only what this variable names.
        trusted = {"REQUESTS_CA_BUNDLE": stack.environment["SSL_CERT_FILE"]}
        self.environment = {**os.environ, **stack.environment, **ENVIRONMENT, **trusted}
        self.engine: Engine = create_engine(stack.environment["DATABASE_URL"], read_seconds=600)
        self.emulator = Emulator(stack.fcm.url, stack.fcm.data)
        self.redis: Redis = Redis.from_url(stack.redis.url)
        self.api = Celery(broker=stack.redis.url, set_as_current=False)

    def load(self) -> None:
        """Make the schema and the rows, and keep a copy of the rows."""
        with self.stack.mariadb.root() as cursor:
            cursor.execute(f"SET GLOBAL innodb_buffer_pool_size = {2 << 30}")  # the tables fit into memory, as on a server
            cursor.execute(f"SET GLOBAL innodb_log_file_size = {1 << 30}")
        create_shared_schema(self.engine)
        migrate(self.engine)
        with self.engine.begin() as connection:
            load_chat(connection, users=USERS, conversations=CONVERSATIONS, notifications=1, quiet=0, bad_tokens=0)
            connection.execute(text("DELETE FROM chat_notifications"))
            connection.execute(text("DELETE FROM messages"))
            pairs = conversation_pairs(connection)
        for first in range(1, self.rows + 1, CHUNK):
            with self.engine.begin() as connection:
                enqueue(connection, pairs, min(CHUNK, self.rows - first + 1), first=first, most_devices=1)
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE bench_rows AS SELECT * FROM chat_notifications"))
            connection.execute(text("ALTER TABLE bench_rows ADD PRIMARY KEY (id)"))

    def reset(self, rows: int) -> None:
        """Have just the first `rows` of the rows waiting, an empty broker and an empty endpoint."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET SESSION foreign_key_checks = 0"))
            for table in ("chat_notifications", "worker_deliveries", "worker_providers", "worker_delivery_history"):
                connection.execute(text(f"TRUNCATE {table}"))
            for first in range(1, rows + 1, CHUNK):
                last = min(first + CHUNK - 1, rows)
                statement = "INSERT INTO chat_notifications SELECT * FROM bench_rows WHERE id BETWEEN :first AND :last"
                connection.execute(text(statement), {"first": first, "last": last})
            connection.execute(text("UPDATE chat_notifications SET created_at = NOW()"))
        self.redis.flushdb()
        self.emulator.reset()

    def nudge(self) -> None:
        """Do what the API does after its commit; one nudge brings all processes."""
        self.api.send_task("tasks.notifications.drain", queue="notifications", expires=60, ignore_result=True)

    @contextmanager
    def running(
        self, command: list[str], copies: int = 1, environment: dict[str, str] | None = None
    ) -> Iterator[tuple[list[int], Path]]:
        """Run `command` so many times for the length of the block; yield the pids, each leading its session, and their log."""
        log = self.stack.fcm.folder.path / "contestant.log"
        with log.open("wb") as output:
            processes = [
                subprocess.Popen(
                    command,
                    cwd=PROJECT,
                    env={**self.environment, **(environment or {})},
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                for _ in range(copies)
            ]
        try:
            yield [process.pid for process in processes], log
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def run(self, contestant: Contestant, most_seconds: float) -> Run:
        """Have a contestant send its rows; one that needs longer than `most_seconds` is measured by what it has done."""
        self.reset(contestant.rows)
        contestant.queue(self, contestant.rows)
        own = [self.stack.mariadb.pid, self.stack.fcm.pid]
        with self.running(contestant.command, contestant.copies, contestant.environment) as (pids, log):
            self._await_first(contestant, log)
            before, memory, since = [cpu_seconds(pid) for pid in own], 0.0, time.time()
            contestants_cpu = sum(session_cpu_seconds(pid) for pid in pids)
            while (done := self.emulator.stats().count("accepted")) < contestant.rows and time.time() < since + most_seconds:
                memory = max(memory, *(largest_rss_mb(pid) for pid in pids))
                time.sleep(POLL_SECONDS)
            if done < contestant.rows:
                print(f"{contestant.name} was cut off; its log ends:\n{tail(log)}", file=sys.stderr)
            else:
                while self._waiting() and time.time() < since + most_seconds:
                    time.sleep(0.005)
            ended = time.time()
            contestants_cpu = sum(session_cpu_seconds(pid) for pid in pids) - contestants_cpu
            database, endpoint = (cpu_seconds(pid) - cpu for pid, cpu in zip(own, before, strict=True))
            rows = self._sent()
        began = next(self.emulator.accepted()).t
        seconds = ended - began
        return Run(
            contestant.name,
            contestant.processes,
            rows,
            seconds,
            contestants_cpu / max(rows, 1) * 1000,
            database / max(rows, 1) * 1000,
            endpoint / seconds,
            memory,
            [(second - int(began), count) for second, count in self.emulator.stats().per_second.get("fcm", [])],
        )

    def _await_first(self, contestant: Contestant, log: Path) -> None:
        deadline = time.monotonic() + FIRST_SECONDS
        while not self.emulator.stats().requests():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{contestant.name} has sent nothing in {FIRST_SECONDS} s; its log ends:\n{tail(log)}")
            time.sleep(0.01)

    def _waiting(self) -> bool:
        statement = "SELECT 1 FROM chat_notifications WHERE delivery_status = 'PENDING' LIMIT 1"
        with self.engine.connect() as connection:
            return connection.execute(text(statement)).first() is not None

    def _sent(self) -> int:
        with self.engine.connect() as connection:
            statement = "SELECT COUNT(*) FROM chat_notifications WHERE delivery_status = 'SENT'"
            return int(connection.execute(text(statement)).scalar_one())


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """Return the CPU that a process and its ended children have used; field numbers as in proc_pid_stat(5), less 3."""
    return sum(int(value) for value in _stat(pid)[11:15]) / TICK


def session(pid: int) -> list[int]:
    """Return the live processes of the session that `pid` leads."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int(_stat(int(entry.name))[3]) == pid:
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def session_cpu_seconds(pid: int) -> float:
    """Return the CPU that a session has used so far."""
    return sum(cpu_seconds(member) for member in session(pid))


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def largest_rss_mb(pid: int) -> float:
    """Return the resident memory of the largest process of a session."""
    return max((rss_mb(member) for member in session(pid)), default=0.0)
