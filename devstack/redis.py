"""The stack's Redis: a broker with the settings that production needs, append-only and never evicting."""

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


class Redis(Service):
    """A Redis without a password: it listens on the loopback interface only."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        options = {**OPTIONS, "port": str(self.port), "dir": str(self.data)}
        return [find("redis-server"), *(part for key, value in options.items() for part in (f"--{key}", value))]

    def answers(self) -> bool:
        # While it reads its file back it answers "-LOADING".
        return tcp_answer(self.port, b"PING\r\n") == b"+PONG\r\n"

    def environment(self) -> dict[str, str]:
        return {"CELERY_BROKER_URL": self.url}
