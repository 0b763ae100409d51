"""Dumps, drills and restores on servers set up otherwise: triggers of others, bounds, keys, and every kind of address."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from db.engine import create_engine
from db.models import CHAT_TABLES, DUMPED_TABLES
from devstack.stack import Stack
from tasks.backups import dump, folder, ledger, restore, verify
from tasks.backups.client import DUMPERS, SHELLS, find_client, running, server_family
from tasks.backups.errors import BackupError
from tasks.backups.run import Backups
from tests.backups.conftest import PASSPHRASE, checksums, quiet
from tests.processes import Process

# Its body has the marks that a dump is read by, and signs of quotes and comments in each other.
TRIGGER = r"""
CREATE TRIGGER shout BEFORE INSERT ON messages FOR EACH ROW BEGIN
  -- don't; nor "this`
  SET @a = 'it\'s;', @b = "it's /*", @c = 1 - -1 /* can't; */ / 2; # isn't
  IF NEW.id < 0 THEN
INSERT INTO `x` VALUES (1);

--
-- Table structure for table `users`
--

INSERT INTO `messages` VALUES
(2);
  END IF;
END
"""


@pytest.fixture
def trigger(backups: Backups, stack: Stack) -> Iterator[str]:
    """A trigger on messages whose definer is the server's administrator."""
    with stack.mariadb.root() as cursor:
        cursor.execute(f"USE {backups.engine.url.database}")
        cursor.execute(TRIGGER)
        yield "shout"
        cursor.execute("DROP TRIGGER IF EXISTS shout")


@contextmanager
def globally(stack: Stack, **values: object) -> Iterator[None]:
    with stack.mariadb.root() as cursor:
        for name, value in values.items():
            cursor.execute(f"SELECT @@GLOBAL.{name}")
            values[name] = cursor.fetchone()[0]  # type: ignore[index]
            cursor.execute(f"SET GLOBAL {name} = {value}")
        try:
            yield
        finally:
            for name, value in values.items():
                cursor.execute(f"SET GLOBAL {name} = {value}")


def test_a_trigger_of_someone_else_is_dumped_and_costs_neither_a_drill_nor_a_live_table(backups: Backups, trigger: str) -> None:
    made = backups.daily(quiet)
    verify.check_content(folder.load(backups.folder, made.artefact), [PASSPHRASE], quiet)
    assert backups.drill(quiet).rows == made.rows
    before = checksums(backups.engine)
    with pytest.raises(BackupError, match=r"where nothing was touched: \(1227, .*--no-triggers"):
        backups.restore(backups.find(made.artefact), backups.engine, CHAT_TABLES, quiet)
    assert checksums(backups.engine) == before
    with backups.engine.connect() as connection:
        assert [row[0] for row in connection.execute(text("SHOW TRIGGERS"))] == [trigger]
    backups.restore(backups.find(made.artefact), backups.engine, CHAT_TABLES, quiet, triggers=False)
    assert checksums(backups.engine) == before


def test_a_trigger_that_has_its_own_end_in_a_text_is_not_dumped_as_statements(backups: Backups) -> None:
    """Who restores would run what stands there, and so would each drill."""
    body = "SET @a = 'x;\nDELIMITER ;\nCREATE TABLE pwned (id INT);\n'"
    with backups.engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE TRIGGER innocent BEFORE INSERT ON conversations FOR EACH ROW {body}")
        try:
            with pytest.raises(BackupError, match=r"cannot be told where the trigger `?innocent`? BEFORE INSERT"):
                backups.daily(quiet)
        finally:
            connection.exec_driver_sql("DROP TRIGGER innocent")
    assert backups.daily(quiet).artefact


def test_a_restore_that_stops_says_where_and_goes_on_from_there(backups: Backups, other: Engine, stack: Stack) -> None:
    """A view in a table's place refuses the statement that makes the table anew."""
    made = backups.find(backups.daily(quiet).artefact)
    with other.begin() as connection:
        connection.execute(text("CREATE VIEW message_reads AS SELECT 1 AS id"))
    with pytest.raises(BackupError, match=r"restored: conversations, .*messages; run it again, and it goes on from there"):
        backups.restore(made, other, CHAT_TABLES, quiet)
    with other.begin() as connection:
        connection.execute(text("DROP VIEW message_reads"))
        connection.execute(text("ALTER TABLE conversations COMMENT = 'kept'"))  # until it is restored again
    run = backups.restore(made, other, CHAT_TABLES, quiet, push=True)
    assert "it went on where an earlier one stopped, which had restored conversations" in run.ignored[0]
    assert checksums(other) == checksums(backups.engine)
    assert "kept" in definition(other)
    assert not backups.restore(made, other, CHAT_TABLES, quiet, push=True).ignored
    assert checksums(other) == checksums(backups.engine)
    assert "kept" not in definition(other)


def definition(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SHOW CREATE TABLE conversations")).one()[1])


def stopped(backups: Backups, name: str, other: Engine, *, triggers: bool = True) -> None:
    """Begin a restore that stops behind the messages."""
    with other.begin() as connection:
        connection.execute(text("CREATE VIEW message_reads AS SELECT 1 AS id"))
    with pytest.raises(BackupError, match="restored: conversations, messages"):
        backups.restore(backups.find(name), other, CHAT_TABLES, quiet, triggers=triggers)
    with other.begin() as connection:
        connection.execute(text("DROP VIEW message_reads"))


def test_two_dumps_whose_restores_stopped_by_turns_are_not_mixed(backups: Backups, other: Engine) -> None:
    first, expected = backups.daily(quiet).artefact, checksums(backups.engine)
    with backups.engine.begin() as connection:
        connection.execute(text("UPDATE messages SET message_text = 'written since'"))
    second = backups.daily(quiet, force=True).artefact
    for name in (first, second):
        stopped(backups, name, other)
    backups.restore(backups.find(first), other, CHAT_TABLES, quiet, push=True)
    assert checksums(other) == expected


@pytest.mark.parametrize(
    "change",
    ["DELETE FROM messages LIMIT 1", "UPDATE messages SET message_text = 'since' WHERE id = 1", "DROP TABLE conversations"],
)
def test_a_restored_table_that_was_written_to_meanwhile_is_restored_again(backups: Backups, other: Engine, change: str) -> None:
    name = backups.daily(quiet).artefact
    stopped(backups, name, other)
    with other.begin() as connection:
        connection.execute(text("SET foreign_key_checks = 0"))
        connection.execute(text(change))
    assert "which had restored" in backups.restore(backups.find(name), other, CHAT_TABLES, quiet, push=True).ignored[0]
    assert checksums(other) == checksums(backups.engine)


@contextmanager
def killed(backups: Backups, name: str, target: Engine, log: Path, *options: str) -> Iterator[Process]:
    """Kill a restore behind the first table, while it waits for who holds its note of the second; it may be started again."""
    made = folder.load(backups.folder, name)
    command = [sys.executable, "-c", "from workers.cli import main; main()", "backups", "restore", name, "--yes", "--push"]
    own = {"BACKUP_DIR": str(backups.folder), "BACKUP_PASSPHRASE_FILE": str(backups.settings.backup_passphrase_file)}
    restoring = Process([*command, *options], {**os.environ, **own}, log)
    with target.connect() as holder:
        holder.execute(restore.MAKE_PROGRESS)
        holder.execute(text(restore.NOTE.format(made.signed.manifest.sha256, "messages").partition(";")[0]))
        restoring.start()
        restoring.wait_until(lambda: restored(target) == ["conversations"], "the first table was restored")
        restoring.send(signal.SIGKILL)
        restoring.wait()
        yield restoring


@pytest.mark.parametrize("triggers", ["left out", "dropped since", "there"])
def test_a_restore_goes_on_behind_a_table_only_if_its_triggers_are_there(
    backups: Backups, other: Engine, triggers: str
) -> None:
    with backups.engine.connect() as connection:
        connection.exec_driver_sql(TRIGGER)
        try:
            name = backups.daily(quiet).artefact
        finally:
            connection.exec_driver_sql("DROP TRIGGER shout")
    stopped(backups, name, other, triggers=triggers != "left out")
    with other.connect() as connection:
        connection.execute(text("DROP TRIGGER IF EXISTS shout" if triggers == "dropped since" else "SELECT 1"))
        run = backups.restore(backups.find(name), other, CHAT_TABLES, quiet, push=True)
        assert ("conversations, messages" in run.ignored[0]) == (triggers == "there")
        assert [row[0] for row in connection.execute(text("SHOW TRIGGERS"))] == ["shout"]
    assert checksums(other) == checksums(backups.engine)


def test_a_restore_that_was_killed_goes_on_by_itself(backups: Backups, other: Engine, tmp_path: Path) -> None:
    name = backups.daily(quiet).artefact
    with killed(backups, name, other, tmp_path / "log", "--into", str(other.url.database)) as restoring:
        pass
    assert restoring.start().wait(60) == 0, restoring.lines
    assert "it went on where an earlier one stopped, which had restored conversations" in restoring.lines
    assert checksums(other) == checksums(backups.engine)


def test_a_half_restored_schema_is_not_dumped_until_the_restore_is_done(backups: Backups, tmp_path: Path) -> None:
    name = backups.daily(quiet).artefact
    kept = folder.names(backups.folder, "daily")
    refused = pytest.raises(BackupError, match=r"unfinished restore: run that again.*DROP TABLE worker_restore_progress")
    with killed(backups, name, backups.engine, tmp_path / "log") as restoring, refused:
        backups.daily(quiet, force=True)
    assert folder.names(backups.folder, "daily") == kept
    run = ledger.last_runs(backups.engine)["daily", ""]
    assert run.tried > run.done
    assert restoring.start().wait(60) == 0, restoring.lines
    assert backups.daily(quiet, force=True).rows == folder.load(backups.folder, name).signed.manifest.rows


def restored(target: Engine) -> list[str]:
    """Return the tables that a restore under way has behind it."""
    with suppress(ProgrammingError), target.connect() as connection:
        return [*connection.execute(text(f"SELECT name FROM {restore.PROGRESS} ORDER BY at, name")).scalars()]
    return []


def test_a_text_of_a_table_that_looks_like_a_statement_is_counted_as_none(backups: Backups, stack: Stack) -> None:
    """The servers leave the line breaks of a CHECK as they are."""
    with stack.mariadb.root() as cursor:
        cursor.execute(f"USE {backups.engine.url.database}")
        text_ = "a;\\nINSERT INTO `x` VALUES\\n(1);\\nCREATE TABLE `y` ("
        cursor.execute(f"ALTER TABLE message_reads ADD CONSTRAINT odd CHECK (status <> '{text_}')")
    try:
        made = folder.load(backups.folder, backups.daily(quiet).artefact)
        assert set(made.signed.manifest.tables) == set(DUMPED_TABLES)
        verify.check_content(made, [PASSPHRASE], quiet)
        assert backups.drill(quiet).rows == made.signed.manifest.rows
    finally:
        with stack.mariadb.root() as cursor:
            cursor.execute(f"ALTER TABLE {backups.engine.url.database}.message_reads DROP CONSTRAINT odd")


def test_a_replica_that_could_not_record_the_dump_is_refused(backups: Backups, stack: Stack) -> None:
    with globally(stack, read_only=1), pytest.raises(BackupError, match="is read-only, as a replica is"):
        backups.daily(quiet)
    assert folder.names(backups.folder, "daily") == []


@pytest.mark.parametrize("value", ["OFF", "ON", "NO_LOCK", "NO_LOCK_NO_ADMIN"])
def test_a_server_that_spells_read_only_out_is_dumped_if_it_is_off(
    backups: Backups, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """As MariaDB 12.0.1 and later do: https://jira.mariadb.org/browse/MDEV-36425."""
    monkeypatch.setattr(dump, "SERVER", text(str(dump.SERVER).replace("@@GLOBAL.read_only", f"'{value}'")))
    with nullcontext() if value == "OFF" else pytest.raises(BackupError, match="is read-only, as a replica is"):
        assert backups.daily(quiet).rows


def test_a_servers_bound_on_queries_ends_no_dump(backups: Backups, stack: Stack) -> None:
    backups.engine.dispose()
    with backups.engine.connect():  # a session from before, for our own questions
        bound = {"max_execution_time": 1} if server_family(backups.engine) == "MySQL" else {"max_statement_time": 0.001}
        with globally(stack, **bound):
            assert backups.daily(quiet).rows


def test_a_server_that_demands_primary_keys_is_drilled(backups: Backups, stack: Stack) -> None:
    backups.daily(quiet)
    demand = "sql_require_primary_key" if server_family(backups.engine) == "MySQL" else "innodb_force_primary_key"
    with globally(stack, **{demand: 1}):
        assert backups.drill(quiet).rows


@pytest.mark.parametrize("address", ["localhost", "socket", "file", "file and socket", "ssl_disabled"])
def test_the_client_reaches_the_server_that_the_workers_reach(
    backups: Backups, stack: Stack, tmp_path: Path, address: str
) -> None:
    if address == "localhost" and not Path("/etc/hosts").exists():
        pytest.skip("this machine has no name localhost")
    url, socket = backups.engine.url, str(stack.mariadb.socket)
    options = tmp_path / "my.cnf"
    account = f"[client]\nuser={url.username}\npassword='{url.password}'\n"
    with stack.mariadb.root() as cursor:
        cursor.execute(f"CREATE USER IF NOT EXISTS {url.username}@localhost IDENTIFIED BY '{url.password}'")
        cursor.execute(f"GRANT ALL PRIVILEGES ON {url.database}.* TO {url.username}@localhost")
    told = {
        "localhost": url.set(host="localhost"),
        "socket": url.set(host="192.0.2.1", port=1, query={"unix_socket": socket}),
        "file": url.set(host=None, port=None, username=None, password=None, query={"read_default_file": str(options)}),
        "ssl_disabled": url.set(query={"ssl_disabled": "true"}),
    }
    told["file and socket"] = told["file"]
    options.write_text(f"{account}socket={socket}\n" if "socket" in address else f"{account}host=127.0.0.1\nport={url.port}\n")
    family = server_family(backups.engine)
    engine = create_engine(told[address].render_as_string(hide_password=False))
    with engine.connect() as connection:
        here = connection.execute(text("SELECT @@port")).scalar_one()
    engine.dispose()
    for programs, question in ((SHELLS, ("--execute=SELECT @@port",)), (DUMPERS, ("--no-data", str(url.database), "users"))):
        with running(find_client(programs[family]), question, told[address], writes=True) as child:
            assert child.process.stdout
            said = child.process.stdout.read().decode()
            assert child.process.wait(20) == 0
        assert str(here) in said or "CREATE TABLE `users`" in said


def test_a_row_that_the_server_would_not_take_back_is_said_by_the_drill(backups: Backups, stack: Stack) -> None:
    backups.daily(quiet)
    with globally(stack, max_allowed_packet=65_536), pytest.raises(BackupError, match=r"first set .* max_allowed_packet above"):
        backups.drill(quiet)
