"""Everything that a campaign plays on: the services, the processes of two hosts, the network between them, the disk."""

import os
import secrets
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pymysql
from sqlalchemy import Engine, make_url, text

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.chat import DEAD, load_chat
from devstack.emulators.client import Emulator, Fault
from devstack.ports import free_port
from devstack.stack import Stack
from tests.chaos.disk import Disk
from tests.chaos.fleet import Fleet
from tests.chaos.gateway import Gateway
from tests.chaos.proxy import Mode, Proxy
from tests.chaos.unanswered import Cut
from workers.gateway import tokens

SERVICES = ("mariadb", "redis", "fcm", "clamd", "s3")
# Host A has all roles and reaches the services directly; host B has a second notifications worker and a second beat.
HOST_A = {
    "notifications-a": "notifications",
    "attachments": "attachments",
    "housekeeping": "housekeeping",
    "backups": "backups",
    "beat-a": "beat",
    "gateway": "gateway",
}
HOST_B = {"notifications-b": "notifications", "beat-b": "beat"}
# What holds throughout, beside all faults.
STANDING_RULES = (Fault(kind="unregistered", token=f"{DEAD}*"),)
USERS, CONVERSATIONS = 2000, 3000
# due_at is in UTC, whatever the session's time zone is.
LEASED = """
    SELECT notification_id, UNIX_TIMESTAMP(NOW(3)) + TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(3), due_at) / 1000000
    FROM truck2_db.worker_deliveries WHERE lease IS NOT NULL
"""


class Scene:
    """A context in which all of it runs. `logs` is where the processes write theirs."""

    def __init__(self, name: str, logs: Path) -> None:
        self.name = name
        self.logs = logs
        self._undo = ExitStack()
        self.old_code: Path | None = None
        """A checkout of an earlier version, for rolling restarts."""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.stack = undo.enter_context(Stack(self.name, SERVICES))
            self.folder = self.stack.mariadb.folder.path
            self.disk = undo.enter_context(Disk(self.folder / "disk"))
            self.uploads = self.folder / "uploads"
            self.uploads.mkdir()
            ports = {"database": self.stack.mariadb.port, "broker": self.stack.redis.port, "provider": self.stack.fcm.port}
            # The providers are reached through one by each host, so that they can be away for both without losing their log.
            self.network = {
                f"{service}-{host}": undo.enter_context(Proxy(port))
                for service, port in ports.items()
                for host in ("a", "b")
                if host == "b" or service == "provider"
            }
            self.engine = create_engine(self.stack.environment["DATABASE_URL"])
            undo.callback(self.engine.dispose)
            create_shared_schema(self.engine)
            migrate(self.engine)
            with self.engine.begin() as connection:
                load_chat(connection, users=USERS, conversations=CONVERSATIONS, notifications=0, quiet=0)
            self.emulator = Emulator(self.stack.fcm.url, self.stack.fcm.data)
            common = self._environment()
            # Celery prefers a CELERY_BROKER_URL of this process over the one that it is given.
            os.environ.update(self.stack.environment)
            a = common | self._host_a()
            members = {name: (role, a) for name, role in HOST_A.items()}
            members |= {name: (role, common | self._host_b()) for name, role in HOST_B.items()}
            self.emulator.inject(*STANDING_RULES)
            self.fleet = undo.enter_context(Fleet(members, self.logs))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo.close()

    def _environment(self) -> dict[str, str]:
        passphrase = self.folder / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_hex(16) + "\n")
        self.gateway_port = free_port()
        # In a folder of its own: whoever adds a token locks the folder, and the stack holds a lock on its own.
        tokens_file = self.folder / "gateway" / "tokens"
        tokens_file.parent.mkdir()
        self._gateway_token = tokens.issue(tokens_file, "chaos")
        return {
            **self.stack.environment,
            **self.emulator.environment,
            "WEBPUSH_HOSTS": self.push_url.removeprefix("https://"),
            "ATTACHMENTS_URL": f"file://{self.uploads}",
            "ATTACHMENTS_QUARANTINE_URL": f"file://{self.quarantine}",
            "ATTACHMENTS_CONNECTIONS": "4",
            "BACKUP_DIR": str(self.disk.path / "backups"),
            "BACKUP_PASSPHRASE_FILE": str(passphrase),
            "NOTIFICATIONS_PROCESSES": "2",
            "ATTACHMENTS_PROCESSES": "1",
            "HOUSEKEEPING_PROCESSES": "2",
            "GATEWAY_PORT": str(self.gateway_port),
            "GATEWAY_TOKENS_FILE": str(tokens_file),
        }

    def _host_a(self) -> dict[str, str]:
        url = f"https://127.0.0.1:{self.network['provider-a'].port}"
        return {"FCM_BASE_URL": url, "APNS_BASE_URL": url}

    def _host_b(self) -> dict[str, str]:
        database = make_url(self.stack.environment["DATABASE_URL"]).set(port=self.network["database-b"].port)
        url = f"https://127.0.0.1:{self.network['provider-b'].port}"
        return {
            "DATABASE_URL": database.render_as_string(hide_password=False),
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{self.network['broker-b'].port}/0",
            "FCM_BASE_URL": url,
            "APNS_BASE_URL": url,
        }

    @property
    def push_url(self) -> str:
        """The origin that browsers' subscriptions name."""
        return f"https://127.0.0.1:{self.network['provider-a'].port}"

    @property
    def quarantine(self) -> Path:
        """The folder that infected files are copied to."""
        return self.disk.path / "quarantine"

    def gateway(self) -> Gateway:
        """Return a client of the gateway's."""
        return Gateway(f"http://127.0.0.1:{self.gateway_port}", self._gateway_token)

    def await_ready(self, seconds: float = 60) -> None:
        """Wait, for so long at most for each, until the workers have said that they work."""
        for name in self.fleet.members:
            self.fleet.await_ready(name, seconds=seconds)

    def host_of(self, name: str) -> str:
        """Return the host that a member of the fleet runs on."""
        return "b" if name in HOST_B else "a"

    def hosts(self) -> dict[str, str]:
        """Return, for the connections to the providers by their address there, which host's they were, if it was only one's."""
        a, b = (self.network[f"provider-{host}"].served for host in ("a", "b"))
        return dict.fromkeys(a - b, "a") | dict.fromkeys(b - a, "b")

    def cuts(self) -> list[Cut]:
        """Return which connections to the providers were cut, by themselves or by the network, and when."""
        resets = [Cut(connection, at, at) for connection, at in self.emulator.stats().resets]
        return [*resets, *(cut for name, proxy in self.network.items() if name.startswith("provider") for cut in proxy.cuts)]

    def leased(self, patience: float = 30, *, unlocked: bool = False) -> dict[int, float]:
        """Return the notifications that some run holds now, by id, with the Unix time at which their leases end.

        `unlocked` leaves out those that a transaction holds just now. Waits so many seconds for the database.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                with self.stack.mariadb.root() as cursor:
                    cursor.execute(f"{LEASED} FOR UPDATE SKIP LOCKED" if unlocked else LEASED)
                    return {number: float(ends) for number, ends in cursor.fetchall()}
            except pymysql.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def disk_writers(self) -> list[int]:
        """Return the pids of the processes that write to the disk."""
        return [pid for name in ("backups", "attachments") for pid in (self.fleet.pid(name), *self.fleet.children(name)) if pid]

    def heal(self) -> None:
        """Take every fault back, whatever is left of it."""
        for proxy in self.network.values():
            proxy.set(Mode.OPEN)
        for service in (self.stack.mariadb, self.stack.redis, self.stack.clamd, self.stack.s3, self.stack.fcm):
            service.resume()
            if not service.running:
                service.start()
        with self.stack.mariadb.root() as cursor:
            cursor.execute("SET GLOBAL read_only = 0")
            cursor.execute("SET GLOBAL max_connections = 300")
        self.emulator.clear()
        self.emulator.set(latency=0)
        self.emulator.inject(*STANDING_RULES)
        self.disk.make_room(self.disk_writers)
        for name in self.fleet.members:
            self.fleet.signal_all(name, signal.SIGCONT)


def one(engine: Engine, statement: str, **values: object) -> int:
    """Return the one number that a statement selects."""
    with engine.connect() as connection:
        return int(connection.execute(text(statement), values).scalar_one() or 0)
