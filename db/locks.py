"""Named locks of the database server, held by a session of their own: only one run does a job."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

LONGEST_NAME = 64  # MySQL refuses longer ones
# If a host loses power or its connection is dropped by a firewall, the server never learns of it and would keep the lock's
# session open for hours. Every holder sends a query over that session more often than this.
IDLE_SECONDS = 300

TAKE = text("SELECT GET_LOCK(:name, 0), CONNECTION_ID(), IS_USED_LOCK(:name)")
LIVE = text("SET SESSION wait_timeout = :seconds")
FREE = text("SELECT RELEASE_LOCK(:name)")
HOLDER = text("SELECT IS_USED_LOCK(:name)")


class LockedError(Exception):
    """Another session holds the lock."""


class LockLostError(Exception):
    """The session that held the lock has ended, so that another run may hold it by now."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held. `session` is its own connection, for queries beside the work; its loss is the lock's loss."""

    name: str
    session: Connection
    holder: int

    def check(self, connection: Connection) -> None:
        """Raise LockLostError unless the lock is still held, as seen from any connection; a write asks before it begins."""
        if connection.execute(HOLDER, {"name": self.name}).scalar() != self.holder:
            raise LockLostError(f"the lock {self.name} was lost with its connection")


def lock_name(engine: Engine, name: str) -> str:
    """Return the server's name for a lock of this database: named locks are shared by all databases of a server."""
    full = f"chat-workers:{engine.url.database}:{name}"
    return full if len(full) <= LONGEST_NAME else f"chat-workers:{hashlib.sha256(full.encode()).hexdigest()[:40]}"


@contextmanager
def hold(engine: Engine, name: str, *, idle_seconds: int = IDLE_SECONDS) -> Iterator[Lock]:
    """Hold the lock `name` for as long as the context lasts. Raise LockedError at once if another session has it.

    The server frees it when the session ends, also by SIGKILL, or has been silent for `idle_seconds`. The connection never
    returns to the pool, since one that lies there would keep its session, and whatever that still holds.
    """
    full = lock_name(engine, name)
    session = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        session.execute(LIVE, {"seconds": idle_seconds})
        taken, own_id, holder = session.execute(TAKE, {"name": full}).one()
        if taken != 1:
            raise LockedError(f"{name} is already running (database session {holder})")
        yield Lock(full, session, own_id)
        # The end of the session frees it too, but a moment later. If the session is gone already, so is the lock.
        with suppress(SQLAlchemyError):
            session.execute(FREE, {"name": full})
    finally:
        session.invalidate()
        session.close()


def is_held(engine: Engine, name: str) -> bool:
    """Return whether any session holds the lock `name`."""
    with engine.connect() as connection:
        return connection.execute(HOLDER, {"name": lock_name(engine, name)}).scalar() is not None
