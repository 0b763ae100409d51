"""Dumps, drills and restores on servers set up otherwise: triggers of others, bounds, keys, and every kind of address."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.engine import create_engine
from db.models import CHAT_TABLES
from devstack.stack import Stack
from tasks.backups import folder, restore, verify
from tasks.backups.client import DUMPERS, SHELLS, find_client, running, server_family
from tasks.backups.errors import BackupError
from tasks.backups.ledger import Run, recorded
from tasks.backups.run import Backups
from tests.backups.conftest import PASSPHRASE, checksums, quiet

# Its body has the marks that a dump is read by.
TRIGGER = """\
CREATE TRIGGER shout BEFORE INSERT ON messages FOR EACH ROW BEGIN
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


def test_a_restore_that_stops_says_where_and_goes_on_from_there(backups: Backups, other: Engine, stack: Stack) -> None:
    """A view in a table's place refuses the statement that makes the table anew."""
    made = backups.find(backups.daily(quiet).artefact)
    with other.begin() as connection:
        connection.execute(text("CREATE VIEW message_reads AS SELECT 1 AS id"))
    with pytest.raises(BackupError, match=r"conversations, .*messages are restored, the others not: run it again") as refused:
        backups.restore(made, other, CHAT_TABLES, quiet)
    done = str(refused.value).rpartition("; ")[2].partition(" are restored")[0].split(", ")
    with other.begin() as connection:
        connection.execute(text("DROP VIEW message_reads"))
    backups.restore(made, other, [table for table in CHAT_TABLES if table not in done], quiet, push=True)
    assert checksums(other) == checksums(backups.engine)


def test_a_refused_statement_shows_the_servers_reason_and_nobodys_message(backups: Backups, other: Engine) -> None:
    marker = "meet me at the harbour"
    table = b"CREATE TABLE messages (id INT PRIMARY KEY, body VARCHAR(50), UNIQUE (body));\n"
    twice = f"INSERT INTO messages VALUES\n(1,'{marker}'),\n(2,'{marker}');\n"
    garbled = f"INSERT INTO messages VALUES\n(3,'{marker}' {marker});\n"
    client = find_client(SHELLS[server_family(other)])
    for statement, reason in ((twice, "1062"), (garbled, "1064")):
        with pytest.raises(BackupError) as refused, recorded(backups.engine, Run("restore")):
            restore.load_text(other, client, [b"DROP TABLE IF EXISTS messages;\n", table, statement.encode()], "a dump")
        assert f"ERROR {reason}" in str(refused.value)
        assert "harbour" not in str(refused.value)
    with backups.engine.connect() as connection:
        kept = connection.execute(text("SELECT * FROM worker_backup_runs")).all()
    assert len(kept) == 2
    assert "harbour" not in str(kept)


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
