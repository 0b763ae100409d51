"""A chat whose rows are awkward, and the backups of it in an empty folder and an empty part of the bucket."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from db.engine import create_engine
from db.models import CHAT_TABLES
from devstack import stack as stacks
from devstack.chat import load_chat
from devstack.mariadb import MariaDB
from devstack.mysql import MySQL
from devstack.stack import SERVICES, Stack
from settings import get_settings
from tasks.backups import dump
from tasks.backups.manifest import Binlog
from tasks.backups.run import Backups

FEW_ITERATIONS = 1000
PASSPHRASE = b"correct horse battery staple"

# What has broken dumps and their readers: quotes and escapes, line breaks, bytes that are no text, the marks that a dump is
# read by, and characters outside the basic plane.
AWKWARD = (
    "plain",
    "",
    None,
    "👨‍👩‍👧‍👦 🚚 𠮷野家",
    "it's \"quoted\" \\ back\\\\slashed \\' \\n",
    "two\nlines\r\nand\ttab\x00nul\x1aeof",
    "),(1,'x'),\n(2,'y');\nINSERT INTO `messages` VALUES\n(3",
    ";\n-- Dump completed on 2026-01-01\n",
    "-- Table structure for table `users`\n",
    "\\! id\n\\. /etc/passwd\nDELIMITER ;;\n",
    "%s %(name)s {0} $HOME `id`",
    "x" * 60_000,
)

DOCS = Path(__file__).parents[2] / "docs" / "backups.md"

Tick = Callable[[int], None]

_DIGITS = f"({' UNION ALL '.join(f'SELECT {digit} AS d' for digit in range(10))})"


def numbers(first: int, last: int) -> str:
    """Return a table of both servers' SQL with the numbers from `first` to `last` as its column seq; 10,000 at most."""
    tables = ", ".join(f"{_DIGITS} AS {name}" for name in "pqrs")
    return f"(SELECT {first} + p.d + 10 * q.d + 100 * r.d + 1000 * s.d AS seq FROM {tables} HAVING seq <= {last}) AS numbers"


def quiet(_bytes: int) -> None:
    """A tick that neither shows nor stops anything."""


def checksums(engine: Engine) -> dict[str, int]:
    """Return the server's CHECKSUM of each chat table."""
    with engine.connect() as connection:
        rows = connection.execute(text(f"CHECKSUM TABLE {', '.join(CHAT_TABLES)}")).all()
    return {row[0].partition(".")[2]: row[1] for row in rows}


def wait_for_midnight_if_it_is_near(engine: Engine) -> None:
    """Have the test end on the day, and in the month, of its beginning: what is made today is due again tomorrow, by name or by
    BACKUP_HOUR.
    """
    with engine.connect() as connection:
        second = int(connection.execute(text("SELECT TIME_TO_SEC(UTC_TIME())")).scalar_one())
    left = min((hour * 3600 - second) % 86400 for hour in (0, get_settings().backup_hour))
    if left <= 45:
        time.sleep(left + 1)


@contextmanager
def logging(name: str, log: Path | str = "binlog") -> Iterator[Stack]:
    """A server of its own that keeps a binary log, beside its tables or elsewhere."""
    kind = SERVICES[MariaDB.name]

    class Logging(kind):  # type: ignore[misc,valid-type]
        def command(self) -> list[str]:
            words = [word for word in super().command() if word != "--skip-log-bin"]
            return [*words, f"--log-bin={log}", "--server-id=7", "--binlog-format=ROW"]

    with ExitStack() as undo:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(stacks.SERVICES, MariaDB.name, Logging)
            stack = undo.enter_context(Stack(f"{name}-{os.getpid()}", ["mariadb"]))
        yield stack


def replay(target: Stack, logs: list[Path], place: Binlog, work: Path, **variables: str) -> None:
    """Run the block of docs/backups.md that goes on from a restored dump, as an administrator of the target's server."""
    server = target.mariadb
    (work / "my.cnf").touch(mode=0o600)
    (work / "my.cnf").write_text(f"[client]\nuser=root\npassword={server._root_password}\nsocket={server.socket}\n")
    blocks = re.findall(r"```sh\n(.*?)```", DOCS.read_text().partition("## To the second")[2], re.DOTALL)
    mysql = isinstance(server, MySQL)
    variables = {"PARENTS": "users shipments bids"} | variables
    variables |= {
        "BINLOGS": " ".join(map(str, logs)),
        "POSITION": str(place.position),
        "CLIENT": f"{'mysql' if mysql else 'mariadb'} --defaults-extra-file=my.cnf",
    }
    command = ["bash", "-c", f"set -euo pipefail\n{blocks[2 if mysql else 1]}"]
    done = subprocess.run(command, cwd=work, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def awkward(chat: Engine) -> Engine:
    """A chat of a thousand rows in all nine tables, the awkward ones among them."""
    with chat.begin() as connection:
        load_chat(connection, users=50, conversations=60, notifications=300)
        for number, value in enumerate(AWKWARD, 5000):
            connection.exec_driver_sql(
                "INSERT INTO messages (id, message_id, conversation_id, sender_id, message_text, metadata, created_at)"
                ' VALUES (%s, %s, 1, 1, %s, \'{"a": [null, "é🚚"]}\', NULL)',
                (number, f"awkward-{number}", value),
            )
        connection.exec_driver_sql("UPDATE users SET first_name = '𝕬𝖓𝖓 O\\'Neill' WHERE id = 1")
        for statement in (
            "INSERT INTO message_reads (message_id, conversation_id, reader_id, status) SELECT id, 1, 2, 'READ' FROM messages",
            "INSERT INTO message_reactions (message_id, user_id, reaction_emoji) SELECT id, 2, '👍🏽' FROM messages LIMIT 100",
            "INSERT INTO message_attachments (message_id, file_name, file_url, uploaded_by_id)"
            " VALUES (1, '𠮷 報告書.pdf', '/files/a', 1)",
            "INSERT INTO typing_indicators (conversation_id, user_id, expires_at) VALUES (1, 1, NOW() + INTERVAL 5 SECOND)",
        ):
            connection.exec_driver_sql(statement)
    return chat


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    """A private file with one passphrase."""
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_bytes(PASSPHRASE + b"\n")
    return path


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """An empty BACKUP_DIR."""
    path = tmp_path / "backups"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def backups(awkward: Engine, into: Path, passphrase_file: Path) -> Backups:
    """Backups of the awkward chat, with a passphrase and a bucket."""
    settings = get_settings().model_copy(
        update={
            "backup_dir": into,
            "backup_passphrase_file": passphrase_file,
            "backup_s3_uri": f"s3://backups/{uuid4().hex}",
        }
    )
    wait_for_midnight_if_it_is_near(awkward)
    return Backups(awkward, settings, FEW_ITERATIONS)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to copy from; `whole` fills it once a day."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def whole(backups: Backups, made: Path) -> Backups:
    """Backups with two dumps and an archive of them in the folder, all whole."""
    made /= str(dump.today(backups.engine))  # a run that passes midnight makes them anew
    if not made.exists():
        made.mkdir()
        backups.daily(quiet)
        backups.daily(quiet, force=True)
        backups.weekly(quiet)
        for path in backups.folder.iterdir():
            (made / path.name).write_bytes(path.read_bytes())
    for path in made.iterdir():
        (backups.folder / path.name).write_bytes(path.read_bytes())
    return backups


@pytest.fixture
def other(stack: Stack) -> Engine:
    """An engine for an empty schema beside the chat's."""
    return create_engine(stack.mariadb.create_database("test_other"))
