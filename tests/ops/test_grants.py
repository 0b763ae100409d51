"""deploy/mysql/grants.sql: with these rights every job does its work, and nothing else can be done."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from pymysql.cursors import Cursor
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from db.check import check_shared_schema
from db.create import create_shared_schema
from db.engine import create_engine, get_engine
from db.migrate import migrate, newest_revision
from db.needs import VERSION_TABLE
from db.privileges import DENIED, Account, Need, missing, needs, require, worker_tables
from db.transactions import error_code
from devstack.chat import load_chat
from devstack.emulators.client import Emulator
from devstack.folder import PROJECT
from devstack.stack import Stack
from settings import get_settings
from tasks.attachments import run as attachments
from tasks.attachments.scannable import EICAR
from tasks.backups.run import Backups
from tasks.notifications import run as notifications
from tasks.retention import rules
from tasks.retention.policies import POLICIES
from tasks.retention.run import run_policy
from tasks.typing_indicators.expire import expire
from tests.attachments.conftest import reread
from tests.backups.conftest import FEW_ITERATIONS, quiet
from tests.notifications.conftest import forget_process
from tests.processes import Start
from workers.cli import cli
from workers.operations import reader

GRANTS = PROJECT / "deploy/mysql/grants.sql"
ACCOUNTS = ("workers", "backup", "deploy")
DATABASE, HOST, PREFIX = "test_least", "127.0.0.1", "least_"
PASSWORD = "0f-least-Privilege"

As = Callable[[str], Engine]


def named(sql: str) -> str:
    """Return the file with this test's names in place of its own."""
    own = {"truck2_db": DATABASE, r"truck2\_db\_drill": r"test\_least\_drill", "'chat_": f"'{PREFIX}", "'%'": f"'{HOST}'"}
    for theirs, ours in own.items():
        sql = sql.replace(theirs, ours)
    return sql


def given(cursor: Cursor, sql: str) -> None:
    for line in sql.splitlines():
        if line and not line.startswith("--"):
            cursor.execute(line)


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Iterator[Engine]:
    """The database's owner, in a chat of which the workers' tables are not yet made, with the accounts and their rights."""
    owner = create_engine(stack.mariadb.create_database(DATABASE))
    create_shared_schema(owner)
    with stack.mariadb.root() as cursor:
        for account in ACCOUNTS:
            cursor.execute(f"CREATE USER {PREFIX}{account}@'{HOST}' IDENTIFIED BY '{PASSWORD}'")
        given(cursor, named(GRANTS.read_text()))
    yield owner
    owner.dispose()
    with stack.mariadb.root() as cursor:
        for account in ACCOUNTS:
            cursor.execute(f"DROP USER {PREFIX}{account}@'{HOST}'")
    stack.mariadb.drop_database(DATABASE)


@pytest.fixture(scope="module")
def log_in(admin: Engine) -> Iterator[As]:
    """An engine of one of the accounts; the workers' tables are made by the account that is there for it."""
    engines = {
        account: create_engine(
            admin.url.set(username=f"{PREFIX}{account}", password=PASSWORD).render_as_string(hide_password=False)
        )
        for account in ACCOUNTS
    }
    migrate(engines["deploy"])
    yield lambda account: engines[account]
    for engine in engines.values():
        engine.dispose()


@pytest.fixture
def as_worker(
    log_in: As, admin: Engine, scanners: Stack, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Engine]:
    """This process as a worker of the restricted account, with a chat that has work for it."""
    url = log_in("workers").url.render_as_string(hide_password=False)
    own = {"DATABASE_URL": url, "ATTACHMENTS_URL": f"file://{tmp_path}", "RETENTION_ARCHIVE_DIR": str(tmp_path / "archive")}
    for name, value in {**scanners.environment, **own}.items():
        monkeypatch.setenv(name, value)
    get_engine.cache_clear()
    forget_process()
    reread()
    reader.engine.cache_clear()
    yield get_engine()
    get_engine().dispose()
    monkeypatch.undo()
    get_engine.cache_clear()
    forget_process()
    reread()
    reader.engine.cache_clear()


@pytest.fixture(scope="module")
def busy(admin: Engine, log_in: As) -> Engine:
    """A chat with something to do for every job."""
    with admin.begin() as connection:
        load_chat(connection, users=20, conversations=20, notifications=50, quiet=0, bad_tokens=0)
        for statement in (
            "UPDATE chat_notifications SET is_read = 1, created_at = NOW() - INTERVAL 100 DAY, delivery_status = 'SENT'"
            " ORDER BY id LIMIT 5",
            "UPDATE conversations SET is_closed = 1, closed_at = NOW() - INTERVAL 400 DAY ORDER BY id LIMIT 3",
            "INSERT INTO typing_indicators (conversation_id, user_id, expires_at) VALUES (1, 1, NOW() - INTERVAL 1 MINUTE)",
            "INSERT INTO message_attachments (message_id, file_name, file_url, uploaded_by_id) VALUES (1, 'e', '/files/e', 1)",
        ):
            connection.execute(text(statement))
    return admin


def one(engine: Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())


# On each worker_ table.
TO_MIGRATE = {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX", "REFERENCES"}


def test_the_file_grants_what_each_account_needs_and_no_more() -> None:
    granted: dict[str, dict[str, set[str]]] = {account: {} for account in ACCOUNTS}
    for line in filter(lambda line: line.startswith("GRANT"), GRANTS.read_text().splitlines()):
        found = re.fullmatch(r"GRANT (.+) ON `truck2_db`\.`(\w+)` TO 'chat_(\w+)'@'%';", line)
        if found is None:
            assert line == r"GRANT ALL PRIVILEGES ON `truck2\_db\_drill`.* TO 'chat_backup'@'%';"
        else:
            assert found[2] not in granted[found[3]], line
            granted[found[3]][found[2]] = set(re.split(r", (?![^(]*\))", found[1]))
    asked = "add to deploy/mysql/grants.sql what is new, and name its change in docs/upgrading.md"
    assert granted["workers"] == with_create(needs("workers")), asked
    assert granted["backup"] == with_create(needs("backup")), asked
    assert granted["deploy"] == dict.fromkeys((VERSION_TABLE, *worker_tables()), TO_MIGRATE), asked


def with_create(needed: list[Need]) -> dict[str, set[str]]:
    """Return the rights by table. Only with CREATE does a server let a right be granted on a table that is yet to be made."""
    rights: dict[str, set[str]] = {}
    for need in needed:
        rights.setdefault(need.table, {"CREATE"} if need.table.startswith("worker_") else set()).add(need.words)
    return rights


def test_every_worker_owned_table_is_granted(environment: dict[str, str]) -> None:
    with get_engine().connect() as connection:
        made = set(connection.execute(text("SHOW TABLES LIKE 'worker\\_%'")).scalars())
    assert made == {*worker_tables(), VERSION_TABLE}


@pytest.mark.parametrize("account", ["workers", "backup"])
def test_what_is_granted_is_all_that_is_needed(account: Account, log_in: As) -> None:
    with log_in(account).connect() as connection:
        assert list(missing(connection, account)) == []


def test_a_right_that_was_taken_away_is_missing(stack: Stack, log_in: As) -> None:
    right = f"UPDATE (scanned_for_virus, is_safe) ON {DATABASE}.message_attachments"
    with stack.mariadb.root() as cursor:
        cursor.execute(f"REVOKE {right} FROM {PREFIX}workers@'{HOST}'")
    with log_in("workers").connect() as connection:
        found = list(missing(connection, "workers"))
    with stack.mariadb.root() as cursor:
        cursor.execute(f"GRANT {right} TO {PREFIX}workers@'{HOST}'")
    assert [(need.words, need.table, need.job) for need in found] == [
        ("UPDATE (scanned_for_virus, is_safe)", "message_attachments", "attachments")
    ]


def test_the_deploy_account_migrates_and_the_workers_see_it(log_in: As) -> None:
    assert migrate(log_in("deploy")) == (newest_revision(), newest_revision())
    assert check_shared_schema(log_in("workers")) == []


def test_the_workers_account_does_every_job_of_the_workers(as_worker: Engine, busy: Engine, emulator: Emulator) -> None:
    uploads = Path(str(get_settings().attachments_url).removeprefix("file://")) / "files"
    uploads.mkdir()
    (uploads / "e").write_bytes(EICAR)
    drained = notifications.drain()
    notifications.retry_failed()
    notifications.adopt()
    assert notifications.withdraw(1) == 0
    assert drained.rows == {"SENT": 45}
    attachments.sweep()
    assert one(busy, "SELECT scanned_for_virus = 1 AND is_safe = 0 FROM message_attachments") == 1
    assert expire(as_worker) == 1
    with as_worker.begin() as connection:
        rules.change(connection, POLICIES["read_notifications"], {"archive": True})
    done = {name: run_policy(as_worker, policy, by="test") for name, policy in POLICIES.items()}
    assert (done["read_notifications"].rows, done["closed_conversations"].rows) == (5, 3)
    assert all(report.finished or not report.started for report in done.values())


def test_the_backup_account_dumps_and_drills(log_in: As, busy: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    settings = get_settings().model_copy(update={"backup_dir": folder})
    backups = Backups(log_in("backup"), settings, FEW_ITERATIONS)
    dumped = backups.daily(quiet)
    drilled = backups.drill(quiet)
    assert drilled.rows == dumped.rows > 50
    assert dumped.artefact in {path.name for path in folder.iterdir()}


# Every command that asks the database, and whose account it is run with. What they say of a chat that has nothing for them
# is no matter here.
WORKERS = (
    "attachments check", "attachments list infected", "attachments release 1 --reason harmless", "attachments rescan 1",
    "attachments history --scan", "attachments show 1", "attachments status",
    "attachments pause", "attachments resume", "audit list", "notifications cancel --everything --why test --yes",
    "db check", "doctor --only housekeeping", "notifications pause",
    "notifications resume", "notifications replay --yes", "notifications show 1",
    "notifications preview 1", "notifications test --provider fcm --token token-1",
    "notifications status", "retention history", "retention pause", "retention resume", "retention plan",
    "retention run --any-hour", "retention policy list", "retention policy set read_notifications --age 60d", "status",
    "retention forget 2 --yes", "schedule pause retention-worker-tables", "schedule resume retention-worker-tables",
)  # fmt: skip
BACKUP = (
    "backups create daily", "backups create weekly", "backups list", "backups verify", "backups drill", "backups prune",
    "doctor --only backups",
)  # fmt: skip
# The deploy account's own; the server's administrator's; those that ask no database.
OTHERS = {
    "db migrate",
    "db create",
    "backups restore",
    "alerts",
    "gateway revoke",
    "gateway token",
    "gateway tokens",
}
OTHERS |= {
    "backups show",
    "messages discard",
    "messages list",
    "ping",
    "schedule list",
    "schedule run",
}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if found := command.get_command(context, name):
            yield from commands(found, (*path, name))


def test_every_command_is_run_with_the_rights_of_an_account() -> None:
    tried = {*WORKERS, *BACKUP}
    assert {each for each in commands(cli) if not any(f"{line} ".startswith(f"{each} ") for line in tried)} == OTHERS


@pytest.mark.parametrize(("account", "line"), [*(("workers", x) for x in WORKERS), *(("backup", x) for x in BACKUP)])
def test_a_command_needs_no_more_than_its_account_has(
    account: str,
    line: str,
    as_worker: Engine,
    busy: Engine,
    log_in: As,
    vault: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if account == "backup":
        monkeypatch.setenv("DATABASE_URL", log_in("backup").url.render_as_string(hide_password=False))
        monkeypatch.setenv("BACKUP_DIR", str(vault))
        monkeypatch.setenv("BACKUP_PASSPHRASE_FILE", str(vault.parent / "passphrase"))
        get_settings.cache_clear()
        get_engine.cache_clear()
    done = CliRunner().invoke(cli, line.split())
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "denied" not in done.output
    assert done.exit_code != 2, done.output


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BACKUP_DIR that the commands share, beside a passphrase."""
    folder = tmp_path_factory.mktemp("vault")
    (folder / "passphrase").write_text("correct horse battery staple\n")
    (folder / "passphrase").chmod(0o600)
    (folder / "backups").mkdir(mode=0o700)
    return folder / "backups"


@pytest.mark.skipif(os.environ.get("DEVSTACK_DATABASE") == "mysql", reason="MariaDB's alone")
def test_the_docs_say_that_mariadb_keeps_no_column_from_who_may_read_another(log_in: As, busy: Engine) -> None:
    with log_in("workers").connect() as connection:
        connection.exec_driver_sql("HANDLER messages OPEN")
        assert connection.exec_driver_sql("HANDLER messages READ FIRST").one().message_text
        connection.exec_driver_sql("HANDLER messages CLOSE")
    assert "HANDLER" in (PROJECT / "docs/security.md").read_text()


# What each account is refused, statement by statement.
REFUSED: list[tuple[str, str]] = [
    *((account, f"DROP TABLE {table}") for account in ACCOUNTS for table in ("chat_notifications", "messages")),
    *((account, "ALTER TABLE chat_notifications ADD COLUMN mine INT") for account in ACCOUNTS),
    *((account, "CREATE INDEX mine ON messages (created_at)") for account in ACCOUNTS),
    *((account, "CREATE TABLE mine (id INT)") for account in ACCOUNTS),
    *((account, "TRUNCATE TABLE typing_indicators") for account in ACCOUNTS),
    *((account, "UPDATE messages SET message_text = ''") for account in ACCOUNTS),
    *((account, "DELETE FROM messages") for account in ACCOUNTS),
    *((account, "SELECT * FROM users") for account in ACCOUNTS),
    *((account, "SELECT * FROM mysql.user") for account in ACCOUNTS),
    *((account, "SET GLOBAL max_connections = 5") for account in ACCOUNTS),
    *((account, "CREATE USER mine@'127.0.0.1'") for account in ACCOUNTS),
    *((account, f"GRANT SELECT ON messages TO {PREFIX}workers@'{HOST}'") for account in ACCOUNTS),
    ("workers", "SELECT message_text FROM messages"),
    ("workers", "UPDATE chat_notifications SET body = ''"),
    ("workers", "INSERT INTO chat_notifications (id) VALUES (1)"),
    ("workers", "DELETE FROM message_attachments"),
    ("workers", "DELETE FROM conversations"),
    ("workers", "DROP TABLE worker_deliveries"),
    ("workers", "ALTER TABLE worker_deliveries ADD COLUMN mine INT"),
    ("workers", f"UPDATE {VERSION_TABLE} SET version_num = ''"),
    ("workers", "CREATE DATABASE mine"),
    ("backup", "DELETE FROM chat_notifications"),
    ("backup", "SELECT * FROM worker_deliveries"),
    ("backup", "DROP DATABASE test_least"),
    ("backup", "CREATE DATABASE test_least2drill"),
    ("deploy", "SELECT * FROM chat_notifications"),
    ("deploy", "UPDATE chat_notifications SET body = ''"),
]


@pytest.mark.parametrize(("account", "statement"), REFUSED)
def test_nothing_else_can_be_done(account: str, statement: str, log_in: As) -> None:
    with log_in(account).connect() as connection, pytest.raises(DBAPIError) as refused:
        connection.exec_driver_sql(statement)
    assert error_code(refused.value) in DENIED


def test_a_worker_whose_account_lacks_a_column_of_this_release_ends_at_its_start(
    log_in: As, stack: Stack, start: Start
) -> None:
    """As after an upgrade without grants.sql: every push would fail."""
    url = log_in("workers").url.render_as_string(hide_password=False)
    revoke = f"REVOKE SELECT (joined_at) ON {DATABASE}.chat_participants FROM {PREFIX}workers@'{HOST}'"
    with stack.mariadb.root() as cursor:
        cursor.execute(revoke)
        try:
            worker = start("celery -A workers.app worker -Q notifications -c 1", "notifications", DATABASE_URL=url)
            assert worker.wait(60) == 2
        finally:
            cursor.execute(revoke.replace("REVOKE", "GRANT").replace("FROM", "TO"))
    assert "joined_at" in worker.lines
    assert "deploy/mysql/grants.sql" in worker.lines
    require(url)


@pytest.mark.skipif(os.environ.get("DEVSTACK_DATABASE") == "mysql", reason="the command that is printed calls MariaDB's client")
def test_the_printed_command_for_directus_gives_its_account_rights_and_no_table_chooses_others(stack: Stack) -> None:
    """Whoever may make a table chooses its name, which is in a statement that the administrator runs."""
    path = PROJECT / "deploy/directus/grants.sql"
    command = next(line.removeprefix("--").strip() for line in path.read_text().splitlines() if "cat grants.sql" in line)
    for mine, theirs in (("truck2_db", "test_directus_grants"), ("10.0.0.%", HOST), ("grants.sql", str(path))):
        command = command.replace(mine, theirs)
    options = f"--no-defaults --socket={stack.mariadb.socket} -u root -p{stack.mariadb._root_password}"
    evil = f"a` TO {PREFIX}api;GRANT ALL ON *.* TO {PREFIX}api;#"
    with stack.mariadb.root() as cursor:
        cursor.execute(f"CREATE USER directus@'{HOST}', {PREFIX}api")
        cursor.execute("CREATE DATABASE test_directus_grants")
        cursor.execute("USE test_directus_grants")
        for table in ("a", evil.replace("`", "``"), "worker_dead_devices"):
            cursor.execute(f"CREATE TABLE `{table}` (id INT)")
        cursor.execute(
            "CREATE TABLE worker_retention_policies (enabled INT, age INT, hours INT, rows_per_run INT, minutes_per_run INT,"
            " batch_rows INT, archive INT)"
        )
        done = subprocess.run(
            ["bash", "-c", "set -o pipefail; " + command.replace("mariadb ", f"mariadb {options} ")],
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            assert done.returncode == 0, done.stderr
            cursor.execute(f"SHOW GRANTS FOR directus@'{HOST}'")
            assert len(cursor.fetchall()) == 5
            cursor.execute(f"SHOW GRANTS FOR {PREFIX}api")
            assert cursor.fetchall() == ((f"GRANT USAGE ON *.* TO `{PREFIX}api`@`%`",),)
        finally:
            cursor.execute("DROP DATABASE test_directus_grants")
            cursor.execute(f"DROP USER directus@'{HOST}', {PREFIX}api")
