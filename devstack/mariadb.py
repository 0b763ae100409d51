"""The stack's MariaDB: laid out anew, quick in tests, and with every commit still there after a SIGKILL."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
from pymysql.cursors import Cursor

from db.engine import Connection
from devstack.errors import StackError
from devstack.folder import Folder
from devstack.programs import find
from devstack.service import Service

DATABASE = "truck2_db"
USER = "chat_workers"
INSTALL_SECONDS = 120.0

STORAGE = ["--innodb-log-file-size=48M"]

SERVER = [
    "--default-time-zone=+00:00",  # whatever this machine's is
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_unicode_ci",
    "--max-connections=300",
    # A commit reaches the kernel but not yet the disk: it survives the death of the process, not of the machine.
    # The doublewrite buffer stays on, since a SIGKILL can cut the writing of a page in two.
    "--innodb-flush-log-at-trx-commit=2",
]


class MariaDB(Service):
    """A MariaDB with an account for the workers over TCP, which owns their databases, and root on the socket only."""

    name = "mariadb"

    # Run by the server before it listens, at each start. One statement a line is the format of an init file.
    ACCOUNTS = """\
DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost');
FLUSH PRIVILEGES;
ALTER USER root@localhost IDENTIFIED BY '{root_password}';
CREATE USER IF NOT EXISTS {user}@'127.0.0.1' IDENTIFIED BY '{password}';
CREATE DATABASE IF NOT EXISTS {database};
GRANT ALL PRIVILEGES ON {database}.* TO {user}@'127.0.0.1';
GRANT ALL PRIVILEGES ON {database}_drill.* TO {user}@'127.0.0.1';
"""

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self.socket = folder.socket(self.name)
        self._tables, self._scratch, self._accounts = (self.data / name for name in ("tables", "scratch", "accounts.sql"))
        self.password = secrets.token_hex(16)
        self._root_password = secrets.token_hex(16)

    def url(self, database: str = DATABASE) -> str:
        return f"mysql+pymysql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database, in place of one of that name, and return its URL."""
        with self.root() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
            cursor.execute(f"CREATE DATABASE `{name}`")
            # In a grant, '_' stands for any character unless it is escaped.
            cursor.execute(f"GRANT ALL PRIVILEGES ON `{name.replace('_', chr(92) + '_')}`.* TO {USER}@'127.0.0.1'")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        with self.root() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")

    @contextmanager
    def root(self) -> Iterator[Cursor]:
        """Open a cursor with all rights, in autocommit, for what the workers' account may not do."""
        connection = Connection(unix_socket=str(self.socket), user="root", password=self._root_password, autocommit=True)
        with connection, connection.cursor() as cursor:
            yield cursor

    def prepare(self) -> None:
        super().prepare()
        self._scratch.mkdir()
        # In a process group of its own, so that a Ctrl-C meanwhile ends the children too before the folder is removed.
        self.spawn(self.installation(), cwd=self.data)
        try:
            status = self.ended(INSTALL_SECONDS)
        finally:
            self.kill()
        if status != 0:
            raise StackError(f"{self.name} could not lay out its tables: status {status}. {self.log_ends()}")
        self._accounts.touch(mode=0o600)
        self._accounts.write_text(
            self.ACCOUNTS.format(root_password=self._root_password, user=USER, password=self.password, database=DATABASE)
        )

    def installation(self) -> list[str]:
        """Return the program that lays out the server's own tables, and its arguments."""
        # The script looks for the server's programs in PATH; an ordinary user's may lack the folder of some.
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(find("mariadbd")).parent)])
        return [
            "env",
            f"PATH={path}",
            find("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self._tables}",
            # A server that starts removes all temporary tables from this folder, in /tmp those of one that starts beside it.
            f"--tmpdir={self._scratch}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            # Else it refuses a machine whose own name cannot be looked up, such as a bare chroot.
            "--force",
            *STORAGE,
            *as_root(),
        ]

    def command(self) -> list[str]:
        return [
            find("mariadbd"),
            "--no-defaults",
            f"--datadir={self._tables}",
            f"--tmpdir={self._scratch}",
            f"--socket={self.socket}",
            f"--port={self.port}",
            f"--pid-file={self.data / 'mariadbd.pid'}",
            f"--init-file={self._accounts}",
            *STORAGE,
            *SERVER,
            *as_root(),
        ]

    def answers(self) -> bool:
        try:
            with Connection(
                host="127.0.0.1",
                port=self.port,
                user=USER,
                password=self.password,
                database=DATABASE,
                connect_timeout=2,
            ) as connection:
                connection.ping(reconnect=False)
        except pymysql.OperationalError:
            return False
        return True

    def environment(self) -> dict[str, str]:
        return {"DATABASE_URL": self.url()}


def as_root() -> list[str]:
    # The server refuses to run as root unless told so, and warns an ordinary user who tells it.
    return ["--user=root"] if os.geteuid() == 0 else []
