"""A dump says where its snapshot stands in the server's binary log, and a restored one goes on from there to any second."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from db.models import CHAT_TABLES
from devstack.chat import load_chat
from devstack.mysql import MySQL
from devstack.stack import Stack
from tasks.backups import folder
from tasks.backups.client import server_family
from tasks.backups.run import Backups
from tests.backups.conftest import checksums, logging, quiet, replay
from tests.processes import wait_until

PARENTS = ("users", "shipments", "bids")
HEARD = "CREATE TABLE heard (what TEXT)"  # by a trigger
FOREVER = "2038-01-01 00:00:00"


@pytest.fixture(scope="module")
def logged() -> Iterator[Stack]:
    with logging("binlog") as stack:
        yield stack


def test_a_dump_notes_its_place_in_the_binary_log(logged: Stack, backups: Backups) -> None:
    """Of the snapshot on MariaDB; on MySQL from before it, which takes a right more."""
    engine = create_engine(logged.mariadb.url())
    create_shared_schema(engine)
    migrate(engine)
    mysql = server_family(engine) == "MySQL"
    made = Backups(engine, backups.settings, backups.iterations)

    if mysql:
        first = folder.load(made.folder, made.daily(quiet).artefact)
        assert first.signed.manifest.binlog is None
        with logged.mariadb.root() as cursor:
            cursor.execute("GRANT REPLICATION CLIENT ON *.* TO chat_workers@'127.0.0.1'")
        engine.dispose()  # for new sessions alone
    written = False

    def write(size: int) -> None:
        nonlocal written
        if size and not written:
            written = True
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO users (id, first_name) VALUES (1, 'a')"))

    before = place(logged, mysql=mysql)
    backup = folder.load(made.folder, made.daily(write, force=True).artefact)
    found = backup.signed.manifest.binlog
    assert found
    assert (found.file, found.position) == before
    assert place(logged, mysql=mysql) > before
    if not mysql:
        with engine.connect() as connection:
            assert found.gtid
            assert (
                connection.execute(text("SELECT BINLOG_GTID_POS(:f, :p)"), {"f": before[0], "p": before[1]}).scalar()
                == found.gtid
            )
    engine.dispose()


def place(stack: Stack, *, mysql: bool) -> tuple[str, int]:
    with stack.mariadb.root() as cursor:
        cursor.execute("SHOW BINARY LOG STATUS" if mysql else "SHOW MASTER STATUS")
        row = cursor.fetchone()
        assert row
        return str(row[0]), int(row[1])


def test_the_printed_blocks_go_on_from_a_restored_dump_to_a_given_second(
    logged: Stack, backups: Backups, tmp_path: Path
) -> None:
    made, name = dumped(logged, backups)
    with logged.mariadb.root() as cursor:
        cursor.execute(
            "CREATE TRIGGER test_source.hears AFTER INSERT ON test_source.messages FOR EACH ROW"
            " INSERT INTO test_source.heard VALUES (NEW.message_id)"
        )
    execute(
        made.engine,
        "INSERT INTO messages (message_id, conversation_id, sender_id, message_text) VALUES ('late', 1, 1, 'said since')",
        "INSERT INTO message_reads (message_id, conversation_id, reader_id) SELECT MAX(id), 1, 2 FROM messages",
        "UPDATE chat_notifications SET delivery_status = 'SENT', is_sent = 1 ORDER BY id LIMIT 10",
        "DELETE FROM chat_notifications ORDER BY id DESC LIMIT 5",
    )
    wanted, stop = checksums(made.engine), next_second(made.engine)
    execute(made.engine, "DELETE FROM message_reads", "DELETE FROM chat_notifications")

    assert gone_on(logged, made, name, "test_target", tmp_path, stop) == wanted


def test_a_rehearsal_leaves_the_binary_log_fit_for_the_next(logged: Stack, backups: Backups, tmp_path: Path) -> None:
    """On the server that keeps the log: it has the rehearsal too, and what an administrator logged with a GTID of before."""
    made, name = dumped(logged, backups)
    change = "DELETE FROM chat_notifications ORDER BY id DESC LIMIT 5"
    execute(made.engine, change)
    wanted, stop = checksums(made.engine), next_second(made.engine)
    assert gone_on(logged, made, name, "test_first", tmp_path, stop) == wanted
    if not is_mysql(logged):
        with logged.mariadb.root() as cursor:
            cursor.execute("SET SESSION gtid_seq_no = 1")
            cursor.execute("CREATE TABLE test_source.elsewhere (id INT)")
            cursor.execute("SET GLOBAL gtid_strict_mode = 1")
    execute(made.engine, change)
    assert gone_on(logged, made, name, "test_second", tmp_path, FOREVER) == checksums(made.engine)


def test_who_signed_up_since_the_dump_comes_back_by_the_log_or_with_the_parents(
    logged: Stack, backups: Backups, tmp_path: Path
) -> None:
    made, name = dumped(logged, backups)
    keep_parents(logged)
    execute(
        made.engine,
        "INSERT INTO users (id, first_name) VALUES (900, 'new')",
        "INSERT INTO messages (message_id, conversation_id, sender_id, message_text) VALUES ('late', 1, 900, 'I am new')",
        "UPDATE users SET first_name = 'newer' WHERE id = 900",
    )
    wanted, stop = checksums(made.engine), next_second(made.engine)
    owner = {"test_parents": " ".join(PARENTS), "test_source": ""}
    if not is_mysql(logged):
        with pytest.raises(AssertionError, match="ERROR 1452"):
            gone_on(logged, made, name, "test_target", tmp_path, stop, "test_parents", PARENTS="")
    for parents_of, parents in owner.items():
        assert gone_on(logged, made, name, "test_target", tmp_path, stop, parents_of, PARENTS=parents) == wanted
        with logged.mariadb.root() as cursor:
            cursor.execute("SELECT first_name FROM test_target.users WHERE id = 900")
            assert cursor.fetchall() == (("newer",),)


def test_what_names_a_missing_parent_stops_mariadb_and_is_left_out_by_mysql(
    logged: Stack, backups: Backups, tmp_path: Path
) -> None:
    made, name = dumped(logged, backups)
    keep_parents(logged)
    with logged.mariadb.root() as cursor:
        cursor.execute("DELETE FROM test_parents.users WHERE id = 20")
    before = checksums(made.engine)
    execute(
        made.engine,
        "INSERT INTO messages (message_id, conversation_id, sender_id, message_text) VALUES ('late', 1, 20, 'Who am I?')",
    )
    if is_mysql(logged):
        assert gone_on(logged, made, name, "test_target", tmp_path, FOREVER, "test_parents") == before
    else:
        with pytest.raises(AssertionError, match="ERROR 1452"):
            gone_on(logged, made, name, "test_target", tmp_path, FOREVER, "test_parents")


def keep_parents(logged: Stack) -> None:
    """Be the parents' owner, who backs them up."""
    logged.mariadb.create_database("test_parents")
    with logged.mariadb.root() as cursor:
        for table in PARENTS:
            cursor.execute(f"CREATE TABLE test_parents.{table} AS SELECT * FROM test_source.{table}")


def dumped(logged: Stack, backups: Backups) -> tuple[Backups, str]:
    """Return the backups of a small chat on the server that keeps a log, and the name of its dump."""
    source = create_engine(logged.mariadb.create_database("test_source"))
    create_shared_schema(source)
    migrate(source)
    with logged.mariadb.root() as cursor:
        if is_mysql(logged):
            cursor.execute("GRANT REPLICATION CLIENT ON *.* TO chat_workers@'127.0.0.1'")
        else:
            cursor.execute("SET GLOBAL gtid_strict_mode = 0")
    execute(source, HEARD)
    with source.begin() as connection:
        load_chat(connection, users=20, conversations=20, notifications=50)
    made = Backups(source, backups.settings, backups.iterations)
    return made, made.daily(quiet, force=True).artefact


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def next_second(engine: Engine) -> str:
    """Return the second after the next, in UTC, when it is over."""
    with engine.connect() as connection:
        stop = connection.execute(text("SELECT UTC_TIMESTAMP() + INTERVAL 1 SECOND")).scalar_one()
        wait_until(
            lambda: connection.execute(text("SELECT UTC_TIMESTAMP() > :stop"), {"stop": stop}).scalar() == 1, "it is later"
        )
    return str(stop)


def gone_on(
    logged: Stack, made: Backups, name: str, database: str, work: Path, stop: str, parents_of: str = "test_source", **more: str
) -> dict[str, int]:
    """Restore a dump beside its parents, go on from it with the printed block, and return what is there then."""
    target = create_engine(logged.mariadb.create_database(database))
    create_shared_schema(target)
    migrate(target)
    execute(target, HEARD, *(f"INSERT INTO {table} SELECT * FROM {parents_of}.{table}" for table in PARENTS))
    made.restore(made.find(name), target, CHAT_TABLES, quiet, push=True)
    binlog = folder.load(made.folder, name).signed.manifest.binlog
    assert binlog
    logs = [logged.mariadb._tables / binlog.file]
    replay(logged, logs, binlog, work, FROM="test_source", DATABASE=database, STOP=stop, **more)
    found = checksums(target)
    target.dispose()
    return found


def is_mysql(logged: Stack) -> bool:
    return isinstance(logged.mariadb, MySQL)
