"""Sessions are UTC, strict and READ COMMITTED, bound their waits, and a forked child makes its own."""

import os
import ssl
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from db.engine import LOCK_WAIT_SECONDS, SILENT_SECONDS, create_engine, get_engine
from devstack.stack import Stack
from tests.processes import fork
from tests.trickle import trickling

CONNECTION_ID = text("SELECT CONNECTION_ID()")


def variable(engine: Engine, *names: str) -> str:
    """The session's value of the first of the names that this server knows."""
    with engine.connect() as connection:
        for name in names:
            for _, value in connection.execute(text("SHOW SESSION VARIABLES LIKE :name"), {"name": name}):
                return str(value)
    raise LookupError(names)


def connection_id(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(CONNECTION_ID).scalar_one())


def in_child(work: Callable[[], object]) -> int:
    """Return the exit code of a child that runs `work`: 0 if that returned something true."""
    return ended(fork(lambda: truth(work)))


def truth(work: Callable[[], object]) -> None:
    assert work()


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_sessions_are_in_utc(engine: Engine) -> None:
    with engine.connect() as connection:
        zone, now = connection.execute(text("SELECT @@session.time_zone, UNIX_TIMESTAMP(NOW())")).one()
    assert zone == "+00:00"
    assert now == pytest.approx(time.time(), abs=5)


def test_a_timestamp_is_read_as_it_was_written_whatever_the_server_s_zone(stack: Stack, engine: Engine) -> None:
    with stack.mariadb.root() as cursor:
        cursor.execute("SELECT @@global.time_zone")
        [zone] = cursor.fetchone() or ("SYSTEM",)
        cursor.execute("SET GLOBAL time_zone = '+05:30'")
        try:
            assert variable(engine, "time_zone") == "+00:00"
        finally:
            cursor.execute("SET GLOBAL time_zone = %s", (zone,))


def test_sessions_are_read_committed(engine: Engine) -> None:
    assert variable(engine, "transaction_isolation", "tx_isolation") == "READ-COMMITTED"


def test_a_transaction_sees_what_others_committed_since_it_began(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE seen (id INT PRIMARY KEY)"))
    count = text("SELECT COUNT(*) FROM seen")
    with engine.connect() as reader:
        assert reader.execute(count).scalar_one() == 0
        with engine.begin() as writer:
            writer.execute(text("INSERT INTO seen VALUES (1)"))
        assert reader.execute(count).scalar_one() == 1


@pytest.mark.parametrize("value", ["'too long'", "NULL"])
def test_a_value_that_does_not_fit_is_an_error_and_never_cut_in_silence(engine: Engine, value: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE narrow (word VARCHAR(3) NOT NULL) ENGINE=InnoDB"))
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.execute(text(f"INSERT INTO narrow VALUES ({value})"))


def test_an_emoji_comes_back_as_it_went(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("SELECT :text"), {"text": "👨‍👩‍👧‍👦"}).scalar_one() == "👨‍👩‍👧‍👦"


def test_bytes_that_are_no_unicode_cost_a_result_their_own_signs_alone(engine: Engine) -> None:
    # MariaDB takes halves of surrogate pairs for utf8mb4; MySQL makes NULL of them.
    half = text("SELECT 1, CONVERT(X'61EDA08062' USING utf8mb4), 'é'")
    with engine.connect() as connection:
        for _ in range(2):
            number, read, behind = connection.execute(half).one()
            assert (number, behind) == (1, "é")
            assert read in {"a\ufffd\ufffd\ufffdb", None, "a???b"}


def test_a_lock_wait_is_bounded(engine: Engine) -> None:
    assert variable(engine, "innodb_lock_wait_timeout") == str(LOCK_WAIT_SECONDS)


def test_what_a_host_that_vanished_holds_locked_is_free_again_within_two_minutes(engine: Engine) -> None:
    assert variable(engine, "wait_timeout") == str(SILENT_SECONDS)
    assert SILENT_SECONDS <= 120


def test_a_transaction_leaves_nothing_open_on_the_connection_that_goes_back_to_the_pool(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE left_open (id INT PRIMARY KEY) ENGINE=InnoDB"))
    ours = connection_id(engine)
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO left_open VALUES (1)"))
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.execute(text("INSERT INTO left_open VALUES (2), (2)"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM left_open")).scalar_one() == 0
        assert connection.execute(text("SELECT CONNECTION_ID()")).scalar_one() == ours


def test_an_answer_that_does_not_come_is_an_error_in_time(database_url: str) -> None:
    impatient = create_engine(database_url, read_seconds=1)
    began = time.monotonic()
    with pytest.raises(OperationalError), impatient.connect() as connection:
        connection.execute(text("SELECT SLEEP(30)"))
    assert time.monotonic() - began < 5


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.engine.CONNECT_SECONDS", 0.5)
    with trickling((b"", b"")) as silent:
        engine = create_engine(f"mysql+pymysql://a:b@127.0.0.1:{silent.address[1]}/c", read_seconds=3600)
        with pytest.raises(OperationalError, match="timed out"):
            engine.connect()


def test_a_connection_that_died_in_the_pool_is_replaced_unseen(stack: Stack, engine: Engine) -> None:
    first = connection_id(engine)
    with stack.mariadb.root() as cursor:
        cursor.execute(f"KILL {first}")
    assert connection_id(engine) != first


def test_a_connection_that_checks_no_certificate_loads_no_authorities(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: loads.append("the system's authorities"))
    engine.dispose()
    assert connection_id(engine)
    assert loads == []


def test_the_process_has_one_engine(chat: Engine) -> None:
    assert get_engine() is chat


@pytest.mark.usefixtures("chat")
def test_a_forked_child_does_not_use_its_parent_s_connection() -> None:
    ours = connection_id(get_engine())
    assert in_child(lambda: connection_id(get_engine()) != ours) == 0


@pytest.mark.usefixtures("chat")
def test_a_forked_child_does_not_close_its_parent_s_connection() -> None:
    def come_and_go() -> bool:
        connection_id(get_engine())
        get_engine().dispose()
        return True

    get_engine().dispose()  # so that the pool holds this one alone
    ours = connection_id(get_engine())
    assert [in_child(come_and_go) for _ in range(3)] == [0, 0, 0]
    assert connection_id(get_engine()) == ours


@pytest.mark.usefixtures("chat")
def test_parent_and_child_may_be_in_mid_transaction_at_the_same_time() -> None:
    """A connection that is in use at the fork stays the parent's: what the child does cannot be heard on it."""

    def write(connection: Connection, number: int) -> None:
        connection.execute(text("INSERT INTO users (id, first_name) VALUES (:id, 'A')"), {"id": number})

    def child() -> bool:
        with get_engine().begin() as connection:
            write(connection, 2)
        return True

    with get_engine().begin() as connection:
        write(connection, 1)
        assert in_child(child) == 0
        write(connection, 3)
    with get_engine().connect() as connection:
        assert connection.execute(text("SELECT id FROM users ORDER BY id")).scalars().all() == [1, 2, 3]


@pytest.mark.usefixtures("chat")
def test_many_children_at_once_each_get_a_connection_of_their_own() -> None:
    ours = connection_id(get_engine())
    children = [fork(lambda: truth(lambda: {connection_id(get_engine()) for _ in range(20)} - {ours})) for _ in range(4)]
    assert [ended(child) for child in children] == [0] * 4
