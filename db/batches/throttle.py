"""The throttle: a walk waits while too much is running on the server or a replica has fallen behind."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from db.engine import create_engine
from settings import Settings

# How often the server is asked; pt-archiver and gh-ost look once a second.
CHECK_SECONDS = 0.5
REPLICA_READ_SECONDS = 2.0

# SHOW needs no privilege, and reads the same counter on both servers.
RUNNING = text("SHOW GLOBAL STATUS LIKE 'Threads_running'")
# Our own heartbeat instead of SHOW REPLICA STATUS: true to the millisecond, true through chains, and it needs no privilege.
BEAT = text("INSERT INTO worker_heartbeat (id, at) VALUES (1, NOW(3)) ON DUPLICATE KEY UPDATE at = NOW(3)")
LAG = text("SELECT TIMESTAMPDIFF(MICROSECOND, at, NOW(3)) / 1000000 FROM worker_heartbeat WHERE id = 1")


@dataclass(slots=True)
class Throttle:
    """The limits, and the last answer. `most_running` counts the server's running threads without our own."""

    most_running: int
    most_lag_seconds: float
    replicas: dict[str, Engine] = field(default_factory=dict)
    _checked_at: float = -1e9
    _reason: str | None = None

    @classmethod
    @contextmanager
    def of(cls, settings: Settings) -> Iterator[Self]:
        """Yield the throttle of BATCHES_*; it names each replica by its host in what it says."""
        with ExitStack() as closing:
            replicas = {}
            for url in settings.batches_replica_urls:
                engine = create_engine(url, read_seconds=REPLICA_READ_SECONDS)
                closing.callback(engine.dispose)
                replicas[f"{engine.url.host}:{engine.url.port or 3306}"] = engine
            yield cls(settings.batches_most_running, settings.batches_most_lag_seconds, replicas)

    def reason(self, session: Connection) -> str | None:
        """Return why to wait now, None if there is no reason. The servers are asked again after CHECK_SECONDS."""
        if time.monotonic() - self._checked_at >= CHECK_SECONDS:
            self._reason = self._running(session) or self._lag(session)
            self._checked_at = time.monotonic()
        return self._reason

    def _running(self, session: Connection) -> str | None:
        running = int(session.execute(RUNNING).one()[1]) - 1  # the query itself is one
        return f"{running} threads are running, more than {self.most_running}" if running > self.most_running else None

    def _lag(self, session: Connection) -> str | None:
        if not self.replicas:
            return None
        session.execute(BEAT)
        for name, engine in self.replicas.items():
            try:
                with engine.connect() as connection:
                    lag = connection.execute(LAG).scalar()
            except DBAPIError as error:
                return f"replica {name} cannot be asked how far behind it is: {error.orig}"
            if lag is None:
                return f"replica {name} has no heartbeat: its replication has not reached the worker_ tables"
            if lag > self.most_lag_seconds:
                return f"replica {name} is {lag:.1f} s behind, more than {self.most_lag_seconds:g} s"
        return None
