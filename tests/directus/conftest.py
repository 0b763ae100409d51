"""A real Directus on the shared schema, with the Flow installed, in front of the real gateway and workers.

Only with DIRECTUS=1, as `make test-directus` sets it: Directus takes minutes to install.
"""

import os
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.stack import Stack
from tests.processes import Process, answers, python

from .api import ADMIN_EMAIL, ADMIN_PASSWORD, ADMIN_TOKEN, Api
from .command import chat_workers

collect_ignore_glob = [] if os.environ.get("DIRECTUS") else ["test_*.py"]

INSTALLED = PROJECT / ".devstack" / "directus" / "node_modules"
DEPLOY = PROJECT / "deploy" / "directus"
# All of the loopback network is denied but the gateway's own address: what deploy/directus/README.md advises on one host.
GATEWAY_HOST = "127.0.0.2"
DENY_LIST = "127.0.0.0-127.0.0.1,127.0.0.3-127.255.255.255,::1,0.0.0.0/8,169.254.169.254"

EVENTS_SECRET = f"whsec_{b64encode(os.urandom(32)).decode()}"
DIRECTUS_USER, DIRECTUS_PASSWORD = "directus", uuid4().hex
ROWS = (
    "INSERT INTO users (id, first_name) VALUES (2, 'John'), (5, 'Ana'), (7, 'Ivo')",
    "INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id, last_message_at) VALUES"
    " (1, 'c1', 2, 5, '2025-11-14 19:36:00'), (2, 'c2', 5, 7, '2025-11-15 08:00:00'), (3, 'c3', 2, 7, '2025-11-16 08:00:00')",
    "INSERT INTO messages (id, message_id, conversation_id, sender_id, message_text, is_deleted, created_at) VALUES"
    " (450, 'm1', 1, 2, 'When?', 0, '2025-11-14 19:36:00'), (451, 'm2', 1, 5, 'Noon', 0, '2025-11-14 19:37:00'),"
    " (452, 'm3', 1, 5, 'no, never', 1, '2025-11-14 19:38:00'), (453, 'm4', 2, 7, 'Hello', 0, '2025-11-15 08:00:00')",
    "INSERT INTO message_reads (message_id, conversation_id, reader_id, status) VALUES"
    " (450, 1, 5, 'DELIVERED'), (452, 1, 5, 'SENT'), (453, 2, 5, 'SENT'), (451, 1, 5, 'READ'), (451, 1, 2, 'SENT')",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run's logs and uploads lie."""
    return tmp_path_factory.mktemp("directus")


@pytest.fixture(scope="session")
def scanner() -> Iterator[Stack]:
    with Stack(f"directus-clamd-{os.getpid()}", ["clamd"]) as stack:
        yield stack


@pytest.fixture(scope="session")
def database(stack: Stack) -> Iterator[Engine]:
    """The migrated schema with a small chat, as the owner of the schema sees it."""
    engine = create_engine(stack.mariadb.create_database("test_directus"))
    create_shared_schema(engine)
    migrate(engine)
    with engine.begin() as connection:
        for statement in ROWS:
            connection.execute(text(statement))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def definitions(database: Engine) -> dict[str, str]:
    """The shared and the workers' tables before Directus has seen them."""
    return read_definitions(database)


def read_definitions(database: Engine) -> dict[str, str]:
    with database.connect() as connection:
        tables = [table for table in connection.execute(text("SHOW TABLES")).scalars() if not table.startswith("directus_")]
        found = {table: connection.execute(text(f"SHOW CREATE TABLE `{table}`")).one()[1] for table in tables}
    return {table: re.sub(r" AUTO_INCREMENT=\d+", "", definition) for table, definition in found.items()}


@pytest.fixture(scope="session")
def workers_environment(stack: Stack, scanner: Stack, database: Engine, folder: Path) -> dict[str, str]:
    (folder / "uploads" / "files").mkdir(parents=True)
    return {
        **os.environ,
        **stack.environment,
        **scanner.environment,
        "PYTHONPATH": str(PROJECT),
        "DATABASE_URL": database.url.render_as_string(hide_password=False),
        "ATTACHMENTS_URL": f"file://{folder / 'uploads'}",
        "GATEWAY_ADDRESS": GATEWAY_HOST,
        "GATEWAY_PORT": str(free_port()),
        "GATEWAY_TOKENS_FILE": str(folder / "tokens"),
    }


@pytest.fixture(scope="session")
def gateway_url(workers_environment: dict[str, str]) -> str:
    return f"http://{GATEWAY_HOST}:{workers_environment['GATEWAY_PORT']}"


@pytest.fixture(scope="session")
def gateway_process(workers_environment: dict[str, str], folder: Path, gateway_url: str) -> Iterator[Process]:
    process = Process(python("workers.gateway"), workers_environment, folder / "gateway.log").start()
    process.wait_until(lambda: answers(f"{gateway_url}/healthz"), "the gateway answered")
    yield process
    process.kill()


@pytest.fixture
def gateway(gateway_process: Process, gateway_url: str) -> Iterator[Process]:
    """The gateway, to be stopped: it is brought back."""
    yield gateway_process
    if not gateway_process.runs:
        gateway_process.start().wait_until(lambda: answers(f"{gateway_url}/healthz"), "the gateway answered")


@pytest.fixture(scope="session")
def fleet(workers_environment: dict[str, str], folder: Path) -> Iterator[Process]:
    """One worker of both queues."""
    command = python("celery -A workers.app worker -Q notifications,attachments --concurrency 2")
    process = Process(command, workers_environment, folder / "worker.log").start().wait_ready()
    yield process
    process.kill()


@pytest.fixture
def beat(workers_environment: dict[str, str], folder: Path) -> Iterator[None]:
    """The clock, for the tests that are about the sweep; no other test may be helped by it."""
    process = Process(python("celery -A workers.app beat"), workers_environment, folder / "beat.log").start()
    process.wait_until(lambda: process.said("beat"), "beat spoke")
    yield
    process.kill()


@pytest.fixture(scope="session")
def directus(
    stack: Stack,
    database: Engine,
    definitions: dict[str, str],
    workers_environment: dict[str, str],
    folder: Path,
    gateway_url: str,
) -> Iterator[Api]:
    """Directus, laid out by the schema's owner and then run with no more rights than grants.sql gives it."""
    assert definitions
    if not INSTALLED.exists():
        pytest.fail("Directus is not installed; run these tests with `make test-directus`")
    home = folder / "directus"
    home.mkdir()
    shutil.copytree(DEPLOY / "extensions", home / "extensions")
    (home / "package.json").write_text("{}")  # without one no extension is loaded
    port = free_port()
    owner = database.url
    token = chat_workers(workers_environment, "gateway", "token", "directus-test").strip()
    environment = {
        "PATH": f"{INSTALLED / '.bin'}{os.pathsep}{os.environ['PATH']}",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "SECRET": uuid4().hex + uuid4().hex,
        "DB_CLIENT": "mysql",
        "DB_HOST": "127.0.0.1",
        "DB_PORT": str(owner.port),
        "DB_DATABASE": str(owner.database),
        "DB_USER": str(owner.username),
        "DB_PASSWORD": str(owner.password),
        "ADMIN_EMAIL": ADMIN_EMAIL,
        "ADMIN_PASSWORD": ADMIN_PASSWORD,
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "FLOWS_ENV_ALLOW_LIST": "CHAT_WORKERS_URL,CHAT_WORKERS_TOKEN,CHAT_WORKERS_EVENTS_SECRET",
        "CHAT_WORKERS_EVENTS_SECRET": EVENTS_SECRET,
        "CHAT_WORKERS_URL": gateway_url,
        "CHAT_WORKERS_TOKEN": token,
        "IMPORT_IP_DENY_LIST": DENY_LIST,
        # A test reports to nobody.
        "TELEMETRY_URL": "http://127.0.0.1:9",
        "COMPLIANCE_URL": "http://127.0.0.1:9",
        "PROJECT_OWNER": ADMIN_EMAIL,
    }
    # Not by the package's own command, which asks a registry for newer versions at each start.
    command = [_node(), str(INSTALLED / "@directus" / "api" / "dist" / "cli" / "run.js")]
    bootstrap = subprocess.run(
        [*command, "bootstrap"], cwd=home, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert bootstrap.returncode == 0, bootstrap.stdout + bootstrap.stderr
    grant_least(stack)
    environment |= {"DB_USER": DIRECTUS_USER, "DB_PASSWORD": DIRECTUS_PASSWORD}
    process = Process([*command, "start"], environment, home / "directus.log", folder=home).start()
    process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/server/ping"), "Directus answered")
    yield Api(f"http://127.0.0.1:{port}")
    process.kill()


def _node() -> str:
    node = shutil.which("node", path=f"{INSTALLED / '.bin'}{os.pathsep}{os.environ['PATH']}")
    assert node
    return node


def grant_least(stack: Stack) -> None:
    """Make the account that Directus runs as, and give it what grants.sql prints."""
    account = f"{DIRECTUS_USER}@'127.0.0.1'"
    with stack.mariadb.root() as cursor:
        cursor.execute(f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY '{DIRECTUS_PASSWORD}'")
        cursor.execute("USE test_directus")
        cursor.execute("SET @account = %s", [account])
        cursor.execute((DEPLOY / "grants.sql").read_text())
        for (grant,) in cursor.fetchall():
            cursor.execute(grant)


def install(api: Api, *options: str, token: str = ADMIN_TOKEN) -> "subprocess.CompletedProcess[str]":
    """Run the installer as its user does."""
    environment = {"PATH": os.environ["PATH"], "DIRECTUS_URL": api.url, "DIRECTUS_TOKEN": token}
    command = [_node(), str(DEPLOY / "install.mjs"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture(scope="session")
def api(directus: Api, fleet: Process, gateway_process: Process) -> Api:
    """Directus with both Flows installed, and everything behind it running."""
    assert fleet
    assert gateway_process
    done = install(directus, "--events")
    assert done.returncode == 0, done.stderr
    return directus
