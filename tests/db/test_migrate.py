"""`migrate` makes the worker-owned tables: on a fresh database, again, after a cut, two at once; never a shared one."""

import importlib
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from db.create import create_shared_schema
from db.engine import READ_SECONDS, create_engine
from db.migrate import LOCK, LOCK_SECONDS, MigrationError, current_revision, migrate, newest_revision
from db.models import SHARED
from db.needs import VERSION_TABLE
from devstack.stack import Stack
from tasks import pause
from tasks.retention import rules
from tasks.retention.policies import POLICIES

HEAD = newest_revision()
RELEASE = importlib.import_module("db.migrations.versions.0006_release")


@pytest.fixture
def other(database_url: str) -> Iterator[Engine]:
    """Another process's engine for the same database."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def held_lock(other: Engine) -> Iterator[Connection]:
    """A connection that holds the lock of migrations, as a `db migrate` elsewhere does."""
    with other.connect() as connection:
        assert connection.execute(text("SELECT GET_LOCK(:name, 0)"), {"name": LOCK}).scalar() == 1
        yield connection


def tables(engine: Engine) -> dict[str, str]:
    """Every table of the database with its definition."""
    with engine.connect() as connection:
        names = connection.execute(text("SHOW TABLES")).scalars().all()
        return {name: connection.execute(text(f"SHOW CREATE TABLE `{name}`")).one()[1] for name in names}


def revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return current_revision(connection)


def statements(engine: Engine) -> list[str]:
    """The statements that the engine sends from now on."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    return sent


def test_a_fresh_database_gets_the_worker_tables_and_their_revision(engine: Engine) -> None:
    assert migrate(engine) == (None, HEAD)
    assert revision(engine) == HEAD
    assert tables(engine).keys() >= {"worker_deliveries", "worker_providers", "worker_dead_devices", VERSION_TABLE}


def test_a_database_that_was_never_migrated_has_no_revision(engine: Engine) -> None:
    assert revision(engine) is None
    assert tables(engine) == {}


def test_a_database_of_a_newer_version_is_left_alone_with_a_sentence(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(MigrationError, match=f"at 9999, not {HEAD}; a newer version made them, and this one does not know it"):
        migrate(engine)
    assert revision(engine) == "9999"


def test_a_second_run_changes_nothing(engine: Engine) -> None:
    migrate(engine)
    before = tables(engine)
    assert migrate(engine) == (HEAD, HEAD)
    assert tables(engine) == before


def test_what_the_tables_hold_survives_a_second_run(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO worker_deliveries (notification_id, due_at) VALUES (1, NOW(3))"))
        connection.execute(text(f"DELETE FROM {VERSION_TABLE}"))
    migrate(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT notification_id FROM worker_deliveries")).scalars().all() == [1]


def test_it_can_go_on_wherever_it_was_cut(engine: Engine) -> None:
    """MySQL commits each table by itself: after a kill, any of them may be there, and the revision not."""
    migrate(engine)
    whole = tables(engine)
    made = [name for name in whole if name != VERSION_TABLE]
    for there in range(len(made)):
        with engine.begin() as connection:
            for name in made[there:]:
                connection.execute(text(f"DROP TABLE `{name}`"))
            connection.execute(text(f"DROP TABLE {VERSION_TABLE}" if there % 2 else f"DELETE FROM {VERSION_TABLE}"))
        assert migrate(engine) == (None, HEAD)
        assert tables(engine) == whole


def test_tables_of_the_first_release_get_what_came_later(engine: Engine) -> None:
    migrate(engine)
    whole = tables(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE worker_events"))
        connection.execute(text("ALTER TABLE worker_scans DROP COLUMN of_row"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0005'"))
    assert migrate(engine) == ("0005", HEAD)
    assert tables(engine) == whole


@pytest.fixture
def killed(stack: Stack, engine: Engine) -> Engine:
    """An engine whose connection the server kills when the third table is due."""

    def kill(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if "worker_dead_devices" in statement:
            thread = connection.connection.dbapi_connection.thread_id()  # type: ignore[union-attr]
            with stack.mariadb.root() as cursor:
                cursor.execute(f"KILL {thread}")

    event.listen(engine, "before_cursor_execute", kill)
    return engine


def test_it_can_be_run_again_after_its_connection_was_killed(killed: Engine, other: Engine) -> None:
    with pytest.raises(SQLAlchemyError):
        migrate(killed)
    assert revision(other) is None
    assert "worker_deliveries" in tables(other)
    assert migrate(other) == (None, HEAD)


def test_who_loses_the_connection_is_told_so(killed: Engine) -> None:
    with pytest.raises(OperationalError, match="Lost connection"):
        migrate(killed)


def test_two_at_once_make_the_tables_once(engine: Engine, other: Engine) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(migrate, (engine, other)))
    assert sorted(results, key=str) == [(HEAD, HEAD), (None, HEAD)]


def test_one_waits_for_the_other(engine: Engine, held_lock: Connection) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(migrate, engine)
        wait_for(held_lock, "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'")
        assert "worker_deliveries" not in tables(engine)
        held_lock.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": LOCK})
        assert waiting.result(timeout=180) == (None, HEAD)


@pytest.mark.usefixtures("held_lock")
def test_who_waits_too_long_is_told_so_in_a_sentence(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.migrate.LOCK_SECONDS", 1)
    with pytest.raises(MigrationError, match=r"^another migration has been running for 1 s; try again when it is done$"):
        migrate(engine)
    assert tables(engine) == {}


def test_the_wait_ends_before_the_connection_s_own_patience_does() -> None:
    """Else the wait ends in "lost connection" and not in that sentence."""
    assert LOCK_SECONDS < READ_SECONDS


def test_the_lock_is_free_again_afterwards(engine: Engine, other: Engine) -> None:
    migrate(engine)
    with other.connect() as connection:
        assert connection.execute(text("SELECT IS_FREE_LOCK(:name)"), {"name": LOCK}).scalar() == 1


def test_a_migration_that_fails_leaves_the_lock_free(engine: Engine, other: Engine) -> None:
    def fail(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if "worker_providers" in statement:
            raise LookupError("no room")

    event.listen(engine, "before_cursor_execute", fail)
    with pytest.raises(LookupError, match="no room"):
        migrate(engine)
    with other.connect() as connection:
        assert connection.execute(text("SELECT IS_FREE_LOCK(:name)"), {"name": LOCK}).scalar() == 1


def test_the_shared_tables_stay_as_they_are(engine: Engine) -> None:
    create_shared_schema(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id, first_name) VALUES (1, 'Ana')"))
    before = tables(engine)
    migrate(engine)
    after = tables(engine)
    assert {name: after[name] for name in before} == before
    assert {name for name in after if name not in before} == {name for name in after if name.startswith("worker_")}
    with engine.connect() as connection:
        assert connection.execute(text("SELECT first_name FROM users")).scalars().all() == ["Ana"]


def test_no_statement_of_a_migration_names_a_shared_table(engine: Engine) -> None:
    create_shared_schema(engine)
    sent = statements(engine)
    migrate(engine)
    shared = "|".join(SHARED.tables)
    # A quoted text may: a comment that says whose id a column holds, a policy's name.
    named = [statement for statement in sent if re.search(rf"\b({shared})\b", re.sub(r"'[^']*'", "", statement))]
    assert any("worker_deliveries" in statement for statement in sent)
    assert named == []


def test_it_needs_no_shared_table(engine: Engine) -> None:
    migrate(engine)
    assert all(name.startswith("worker_") for name in tables(engine))


def wait_for(connection: Connection, count: str) -> None:
    """Wait until the statement counts something."""
    deadline = time.monotonic() + 10
    while not connection.execute(text(count)).scalar_one():
        assert time.monotonic() < deadline, count
        threading.Event().wait(0.02)


def test_workers_of_the_version_before_go_on_beside_the_apps(engine: Engine) -> None:
    """Their statements name no app: they read, write and count the app `default`."""
    migrate(engine)
    with engine.begin() as connection:
        for _ in range(2):
            connection.execute(text("INSERT IGNORE INTO worker_providers (provider) VALUES ('fcm')"))
            connection.execute(
                text(
                    "INSERT INTO worker_delivery_counts (minute, provider, outcome, reason, devices)"
                    " VALUES ('2026-01-01', 'fcm', 'sent', '', 1) ON DUPLICATE KEY UPDATE devices = devices + VALUES(devices)"
                )
            )
        connection.execute(text("UPDATE worker_providers SET probes = 3 WHERE provider = 'fcm'"))
        connection.execute(text("INSERT INTO worker_providers (provider, app) VALUES ('fcm', 'driver')"))
        probes = {row.app: row.probes for row in connection.execute(text("SELECT app, probes FROM worker_providers"))}
        counted = {row.app: row.devices for row in connection.execute(text("SELECT app, devices FROM worker_delivery_counts"))}
    assert (probes, counted) == ({"default": 3, "driver": 0}, {"default": 2})


def test_a_pause_of_the_version_before_is_carried_over_and_once_resumed_does_not_come_back(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM worker_pauses"))
        connection.execute(
            text("UPDATE worker_retention_policies SET paused_at = NOW(3), paused_by = 'a' WHERE name = 'audit'")
        )
        connection.execute(text(RELEASE.PAUSED))
        assert "paused by a at" in str(rules.read(connection, POLICIES["audit"]).why_not())
        pause.resume(connection, ["retention:audit"])
        connection.execute(rules.RESUME_BEFORE, {"names": ["audit"]})
        connection.execute(text(RELEASE.PAUSED))
        assert rules.read(connection, POLICIES["audit"]).why_not() is None
