"""Real services for the tests: one private stack a run, an empty schema and quiet providers for each test.

Nothing is skipped: where a program is missing and cannot be installed, the run fails with the sentence that names it.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
from redis import Redis
from sqlalchemy import Engine, text

from db.create import create_shared_schema
from db.engine import create_engine, get_engine
from db.migrate import migrate
from db.needs import VERSION_TABLE
from devstack.emulators.client import Emulator
from devstack.stack import Stack
from settings import get_settings
from tests.processes import Process, Start, python

pytest_plugins = ["tests.order"]

SERVICES = ("mariadb", "redis", "fcm", "s3")
CHAT_DATABASE = "test_chat"

# Laws are checked on the same examples in every run, however slow the machine: a failure is a fault, never luck.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=100)
# New ones in each run: `make chaos`.
hypothesis.settings.register_profile("long", deadline=None, database=None, max_examples=1000)
hypothesis.settings.load_profile("tests")


def pytest_collection_finish() -> None:
    """Let no later collection look through what is loaded."""
    gc.freeze()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The services of this run."""
    with Stack(f"tests-{os.getpid()}", SERVICES) as stack:
        with stack.mariadb.root() as cursor:
            # Tests make databases of their own, all called test_…
            cursor.execute("GRANT ALL PRIVILEGES ON `test\\_%`.* TO chat_workers@'127.0.0.1'")
        yield stack


@pytest.fixture(scope="session")
def scanners() -> Iterator[Stack]:
    """clamd, for the tests that scan, beside the services that all share."""
    with Stack(f"attachments-{os.getpid()}", ["clamd"]) as stack:
        yield stack


@pytest.fixture(scope="session")
def environment(stack: Stack) -> Iterator[dict[str, str]]:
    """The variables that point the workers at the stack, and at the database that `chat` empties; set in this process."""
    url = stack.mariadb.create_database(CHAT_DATABASE)
    environment = {**stack.environment, "DATABASE_URL": url}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        get_settings.cache_clear()
        create_shared_schema(get_engine())
        migrate(get_engine())
        yield environment
        get_engine().dispose()


@pytest.fixture
def chat(environment: dict[str, str]) -> Engine:
    """The engine of a migrated chat database without a row in it."""
    engine = get_engine()
    with engine.begin() as connection:
        tables = [table for table in connection.execute(text("SHOW TABLES")).scalars() if table != VERSION_TABLE]
        # Asked at once: thousands of tests begin so, and leave rows in a few tables, of dozens.
        filled = " UNION ALL ".join(f"SELECT '{table}' FROM DUAL WHERE EXISTS (SELECT 1 FROM `{table}`)" for table in tables)
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        for table in connection.execute(text(filled)).scalars().all():
            connection.execute(text(f"DELETE FROM `{table}`"))
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
    return engine


@pytest.fixture
def emulator(stack: Stack) -> Emulator:
    """The provider emulators, with an empty log and no faults."""
    emulator = Emulator(stack.fcm.url, stack.fcm.data)
    emulator.reset()
    return emulator


@pytest.fixture
def redis(stack: Stack) -> Iterator[Redis]:
    """An empty Redis."""
    with Redis.from_url(stack.redis.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def database_url(stack: Stack) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    name = f"test_{uuid4().hex[:12]}"
    yield stack.mariadb.create_database(name)
    stack.mariadb.drop_database(name)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine for a fresh, empty database."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start modules of Python in this process's environment, and end them after the test.

    `start("workers.beat", "first", LOG_LEVEL="DEBUG")` writes to first.log.
    """
    started: list[Process] = []

    def start_one(words: str, name: str, **variables: str) -> Process:
        started.append(Process(python(words), {**os.environ, **variables}, tmp_path / f"{name}.log"))
        return started[-1].start()

    yield start_one
    for process in started:
        process.kill()
