"""`transact` on a real server: what is tried again, what is not, for how long, and that it is committed once."""

import select
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pymysql
import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError

from db.engine import create_engine
from db.transactions import error_code, transact
from devstack.ports import free_port
from devstack.stack import Stack

LOCK_WAIT, CANNOT_CONNECT = 1205, 2003

ADD_ONE = text("UPDATE counters SET value = value + 1 WHERE id = :id")


@pytest.fixture
def counters(engine: Engine) -> Engine:
    """An engine whose database holds counters 1 and 2 at zero, and which waits a second for a lock."""

    def wait_a_second(connection: pymysql.Connection, _record: object) -> None:
        connection.query("SET SESSION innodb_lock_wait_timeout = 1")

    event.listen(engine, "connect", wait_a_second)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE counters (id INT PRIMARY KEY, value INT NOT NULL) ENGINE=InnoDB"))
        connection.execute(text("INSERT INTO counters VALUES (1, 0), (2, 0)"))
    return engine


@pytest.fixture
def commits(counters: Engine) -> list[None]:
    """Grows by one with each commit."""
    seen: list[None] = []
    event.listen(counters, "commit", lambda _connection: seen.append(None))
    return seen


@pytest.fixture
def holder(counters: Engine) -> Iterator[Connection]:
    """Another connection, which holds the lock on counter 1 until it is rolled back."""
    with counters.connect() as connection:
        connection.execute(text("SELECT * FROM counters WHERE id = 1 FOR UPDATE"))
        yield connection


def values(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT value FROM counters ORDER BY id")).scalars())


class Work:
    """Adds one to each counter that it is given; counts how often it was run. `before` is called with that number."""

    def __init__(self, *ids: int, before: Callable[[int], None] = lambda _attempt: None) -> None:
        self.ids = ids
        self.before = before
        self.attempts = 0

    def __call__(self, connection: Connection) -> str:
        self.attempts += 1
        self.before(self.attempts)
        for number in self.ids:
            connection.execute(ADD_ONE, {"id": number})
        return "done"


def test_what_the_work_returns_is_returned_and_what_it_wrote_is_committed(counters: Engine, commits: list[None]) -> None:
    work = Work(1, 2)
    assert transact(counters, work) == "done"
    assert (values(counters), work.attempts, len(commits)) == ([1, 1], 1, 1)


def test_a_lock_wait_is_tried_again_and_committed_once(counters: Engine, commits: list[None], holder: Connection) -> None:
    def let_go(attempt: int) -> None:
        if attempt == 2:
            holder.rollback()

    work = Work(2, 1, before=let_go)
    assert transact(counters, work) == "done"
    assert (values(counters), work.attempts, len(commits)) == ([1, 1], 2, 1)


def test_a_deadlock_is_tried_again_and_each_side_is_committed_once(counters: Engine, commits: list[None]) -> None:
    both_hold_one = threading.Barrier(2, timeout=10)

    def crosswise(first: int, second: int) -> Work:
        def work(connection: Connection) -> None:
            counted.attempts += 1
            connection.execute(ADD_ONE, {"id": first})
            if counted.attempts == 1:
                both_hold_one.wait()
            connection.execute(ADD_ONE, {"id": second})

        counted = Work()
        transact(counters, work)
        return counted

    with ThreadPoolExecutor(2) as pool:
        sides = list(pool.map(crosswise, (1, 2), (2, 1)))

    assert sum(side.attempts for side in sides) >= 3
    assert (values(counters), len(commits)) == ([2, 2], 2)


def test_a_connection_that_is_killed_in_mid_transaction_is_replaced(
    stack: Stack, counters: Engine, commits: list[None]
) -> None:
    attempts = 0

    def work(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        connection.execute(ADD_ONE, {"id": 1})
        if attempts == 1:
            with stack.mariadb.root() as cursor:
                cursor.execute(f"KILL {connection.execute(text('SELECT CONNECTION_ID()')).scalar_one()}")
        connection.execute(ADD_ONE, {"id": 2})

    transact(counters, work)
    assert (attempts, values(counters), len(commits)) == (2, [1, 1], 1)


def test_connections_that_died_in_the_pool_cost_no_attempt(stack: Stack, counters: Engine) -> None:
    with counters.connect() as connection:
        number = connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
    with stack.mariadb.root() as cursor:
        cursor.execute(f"KILL {number}")
    work = Work(1)
    transact(counters, work)
    assert work.attempts == 1


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("INSERT INTO counters VALUES (1, 0)", IntegrityError),
        ("SELECT * FROM nowhere", ProgrammingError),
        ("SELEKT 1", ProgrammingError),
        ("INSERT INTO counters VALUES (3, 9999999999)", DBAPIError),
        ("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'", DBAPIError),
    ],
)
def test_any_other_error_of_the_database_is_raised_at_once(
    counters: Engine, commits: list[None], statement: str, error: type[DBAPIError]
) -> None:
    work = Work(1)

    def failing(connection: Connection) -> None:
        work(connection)
        connection.execute(text(statement))

    with pytest.raises(error):
        transact(counters, failing)
    assert (work.attempts, values(counters), len(commits)) == (1, [0, 0], 0)


def test_an_error_of_the_work_itself_rolls_back_and_is_raised_at_once(counters: Engine, commits: list[None]) -> None:
    work = Work(1)

    def failing(connection: Connection) -> None:
        work(connection)
        raise LookupError("ours")

    with pytest.raises(LookupError, match="ours"):
        transact(counters, failing)
    assert (work.attempts, values(counters), len(commits)) == (1, [0, 0], 0)


def test_patience_ends_with_the_error_that_the_database_gave(counters: Engine, holder: Connection) -> None:
    assert holder.in_transaction()
    work = Work(1)
    began = time.monotonic()
    with pytest.raises(OperationalError) as raised:
        transact(counters, work, patience=1.9)
    assert error_code(raised.value) == LOCK_WAIT
    assert work.attempts == 2  # the second began within the patience and waited its second for the lock
    assert time.monotonic() - began < 4


def test_without_patience_nothing_is_tried_again(counters: Engine, holder: Connection) -> None:
    assert holder.in_transaction()
    work = Work(1)
    with pytest.raises(OperationalError):
        transact(counters, work, patience=0)
    assert work.attempts == 1


def test_a_server_that_is_away_is_asked_again_until_patience_ends() -> None:
    engine = create_engine(f"mysql+pymysql://u:p@127.0.0.1:{free_port()}/none")
    work = Work()
    began = time.monotonic()
    with pytest.raises(OperationalError) as raised:
        transact(engine, work, patience=0.5)
    assert (error_code(raised.value), work.attempts) == (CANNOT_CONNECT, 0)
    assert 0.1 < time.monotonic() - began < 3


class Wire(socketserver.ThreadingTCPServer):
    """A way to the server that loses the answers to the next `lost` commits, and the connections with them."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, engine: Engine, *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Forward)
        self.server = (engine.url.host or "", engine.url.port or 3306)
        self.lost = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class Forward(socketserver.BaseRequestHandler):
    """One connection over a `Wire`."""

    server: Wire

    def handle(self) -> None:
        client: socket.socket = self.request
        with socket.create_connection(self.server.server) as server:
            while ready := select.select([client, server], [], [])[0]:
                for end, other in ((client, server), (server, client)):
                    if end in ready:
                        if not (data := end.recv(65536)):
                            return
                        other.sendall(data)
                        if end is client and b"COMMIT" in data and self.server.lost:
                            self.server.lost -= 1
                            server.recv(65536)
                            return


def over(engine: Engine, port: int) -> Engine:
    """The engine's database, by another port; in the clear, so that a Wire sees the COMMIT that MySQL would be sent by TLS."""
    url = engine.url.set(port=port).update_query_dict({"ssl_disabled": "true"})
    return create_engine(url.render_as_string(hide_password=False))


def test_a_server_that_comes_back_in_time_is_used(counters: Engine) -> None:
    port = free_port()
    wires: list[Wire] = []
    threading.Timer(0.4, lambda: wires.append(Wire(counters, port=port))).start()
    work = Work(1)
    assert transact(over(counters, port), work) == "done"
    assert values(counters) == [1, 0]
    wires[0].shutdown()


def test_a_commit_whose_answer_was_lost_is_run_again_so_that_work_must_be_harmless_twice(counters: Engine) -> None:
    with Wire(counters) as wire:
        engine = over(counters, wire.server_address[1])
        transact(engine, Work(2))
        wire.lost = 1
        work = Work(1)
        assert transact(engine, work) == "done"
        engine.dispose()
        wire.shutdown()
    assert (work.attempts, values(counters)) == (2, [2, 1])
