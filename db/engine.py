"""The connection to MySQL: one lazy engine a process, UTC and READ COMMITTED sessions, safe across fork."""

import codecs
import os
import select
import socket
import ssl
from datetime import datetime
from functools import cache
from typing import Any

import pymysql
import sqlalchemy
from pymysql import converters
from pymysql.constants import FIELD_TYPE
from sqlalchemy import Engine, event

from settings import get_settings

# Every value bounds a wait: a worker must never hang on a database that has gone quiet.
CONNECT_SECONDS = 5
READ_SECONDS = 60
LOCK_WAIT_SECONDS = 5
METADATA_WAIT_SECONDS = 10
# A host that vanishes within a transaction keeps its locks until the server misses it: eight hours, unless a session says so.
SILENT_SECONDS = 120

# `read_only` of a primary; from MariaDB 12.0 on it is text, with ON and two more (MDEV-36425).
READ_WRITE = (0, "OFF")

# The database's clock decides (UTC on both sides), and a value that does not fit is an error, never cut in silence.
SESSION = (
    "SET SESSION time_zone = '+00:00',"
    f" innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS},"
    f" lock_wait_timeout = {METADATA_WAIT_SECONDS},"
    f" wait_timeout = {SILENT_SECONDS},"
    " sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"
)


# MariaDB takes halves of surrogate pairs (ED A0 80) for utf8mb4; a driver that is strict fails at every result with such a row.
FORGIVING = "utf8_of_mariadb"
_FORGIVING = codecs.CodecInfo(codecs.utf_8_encode, lambda data, _errors="": codecs.utf_8_decode(data, "replace", True))
codecs.register(lambda name: _FORGIVING if name == FORGIVING else None)


def _moment(text: str) -> datetime | None:
    """Return None for what is no time, a date of zeros, of which PyMySQL makes a text."""
    moment = converters.convert_datetime(text)
    return moment if isinstance(moment, datetime) else None


class Connection(pymysql.Connection):
    """PyMySQL's connection; where no certificate is checked, it does not load the system's authorities (25 to 55 ms of CPU)."""

    _sock: socket.socket | None
    _read_timeout: float | None

    def connect(self, sock: Any = None) -> None:
        """Connect, with CONNECT_SECONDS for each answer until the session is there: PyMySQL has them for TCP's alone."""
        patience, self._read_timeout = self._read_timeout, min(CONNECT_SECONDS, self._read_timeout or CONNECT_SECONDS)
        try:
            super().connect(sock)
        finally:
            self._read_timeout = patience

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        super().set_character_set(charset, collation)
        self.encoding = FORGIVING

    def ping(self, reconnect: Any = False) -> None:
        """Ask the server only if something is to be read, its goodbye as a rule: a round trip less for each transaction."""
        poll = select.poll()
        if self._sock:
            poll.register(self._sock, select.POLLIN)
        if not self._sock or poll.poll(0):
            super().ping(reconnect)

    def escape(self, obj: Any, *mapping: Any) -> str:
        """Write a list of ids at once: PyMySQL takes 0.5 us for each, and a row's id goes to MySQL five times."""
        if type(obj) is list and {*map(type, obj)} == {int}:
            return f"({str(obj)[1:-1]})"
        return super().escape(obj, *mapping)

    def _create_ssl_ctx(self, options: dict[str, Any]) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._create_ssl_ctx(options) if options else _encrypted_if_offered()  # type: ignore[misc]
        return context


@cache
def _encrypted_if_offered() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def create_engine(url: str, *, read_seconds: float = READ_SECONDS) -> Engine:
    """Return an engine for `url` whose sessions are UTC, strict and READ COMMITTED. `read_seconds` bounds each answer.

    READ COMMITTED, because REPEATABLE READ takes gap locks that block the API's inserts; pre-ping, because the server may
    have been restarted while a connection lay in the pool.
    """
    engine = sqlalchemy.create_engine(
        url,
        isolation_level="READ COMMITTED",
        # An error's text would else show tokens and messages, in logs and error reports.
        hide_parameters=True,
        pool_pre_ping=True,
        pool_recycle=1800,
        pool_reset_on_return=None,  # a Connection that is closed has ended its transaction: no second ROLLBACK each time
        pool_size=4,
        max_overflow=4,
        pool_timeout=10,
        connect_args={
            "charset": "utf8mb4",
            "local_infile": False,  # also against the URL: a server could ask for any file of this host
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": read_seconds,
            "write_timeout": READ_SECONDS,
            "init_command": SESSION,
            "conv": {**converters.conversions, FIELD_TYPE.DATETIME: _moment, FIELD_TYPE.TIMESTAMP: _moment},
        },
    )
    event.listen(engine, "do_connect", lambda _dialect, _record, arguments, options: Connection(*arguments, **options))
    return engine


@cache
def get_engine() -> Engine:
    """Return this process's engine for DATABASE_URL, made at first use."""
    return create_engine(get_settings().database_url)


def _forget_connections_after_fork() -> None:
    """Drop the parent's pooled connections without closing them: their sockets still belong to the parent."""
    if get_engine.cache_info().currsize:
        get_engine().dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections_after_fork)
