"""The stack's MySQL, in MariaDB's place under DEVSTACK_DATABASE=mysql. `python -m devstack.mysql` fetches it.

Debian's packages of MariaDB and MySQL exclude each other, so MySQL comes from Debian sid into a folder of the project and
runs from there with its own libraries: no container, no chroot, nothing installed on the machine. So do the newer MariaDB's
clients, which the backups' tests ask beside this machine's.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from devstack.errors import StackError
from devstack.folder import DEFAULT_ROOT
from devstack.mariadb import MariaDB, as_root

# A stack's name cannot begin with a dot.
ROOT = DEFAULT_ROOT / ".mysql"
NEWER_MARIADB = DEFAULT_ROOT / ".mariadb11"
PACKAGES = {
    ROOT: ("sid", "mysql-server-core,mysql-client-core"),
    NEWER_MARIADB: ("trixie", "mariadb-client-core,mariadb-client"),
}
FETCH_SECONDS = 900

OPTIONS = [
    "--default-time-zone=+00:00",
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--mysqlx=OFF",
    "--secure-file-priv=NULL",
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_unicode_ci",
    "--max-connections=300",
    # As for MariaDB: a commit survives the death of the process.
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-redo-log-capacity=100M",
]


class MySQL(MariaDB):
    """A MySQL 9 with the accounts and under the name of the stack's MariaDB."""

    ACCOUNTS = """\
ALTER USER root@localhost IDENTIFIED BY '{root_password}';
CREATE USER IF NOT EXISTS {user}@'127.0.0.1' IDENTIFIED BY '{password}';
CREATE DATABASE IF NOT EXISTS {database};
GRANT ALL PRIVILEGES ON {database}.* TO {user}@'127.0.0.1';
GRANT ALL PRIVILEGES ON {database}_drill.* TO {user}@'127.0.0.1';
"""

    def installation(self) -> list[str]:
        fetch()
        return [*self._server(), "--initialize-insecure"]

    def command(self) -> list[str]:
        return [
            *self._server(),
            f"--socket={self.socket}",
            f"--port={self.port}",
            f"--pid-file={self.data / 'mysqld.pid'}",
            f"--init-file={self._accounts}",
            *OPTIONS,
        ]

    def environment(self) -> dict[str, str]:
        """Its own clients come first, for the backups."""
        clients = put_clients(self.data / "clients", ("mysql", "mysqldump", "mysqlbinlog"))
        return {**super().environment(), "PATH": os.pathsep.join([str(clients), os.environ.get("PATH", os.defpath)])}

    def _server(self) -> list[str]:
        return [
            *_program("usr/sbin/mysqld"),
            "--no-defaults",
            f"--basedir={ROOT / 'usr'}",
            f"--plugin-dir={ROOT / 'usr/lib/mysql/plugin'}",
            f"--datadir={self._tables}",
            *as_root(),
        ]


def put_clients(folder: Path, names: Sequence[str], root: Path = ROOT) -> Path:
    """Make commands of these names in a folder, which start fetched programs; return the folder."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(_program(f"usr/bin/{name}", root))} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def _program(path: str, root: Path = ROOT) -> list[str]:
    """Return how a fetched program is started, with its own libraries."""
    libraries = ":".join(str(path) for path in sorted((root / "usr/lib").glob("*-linux-gnu*")))
    loader = next((root / "usr").glob("lib*/ld-linux-*.so.*"), None) or next((root / "usr/lib").glob("*/ld-linux-*.so.*"))
    return [str(loader), "--library-path", libraries, str(root / path)]


def fetch(root: Path = ROOT) -> None:
    """Fetch MySQL, or what else PACKAGES names, if it is missing. Raise StackError, saying what to run, if it cannot be."""
    if root.exists():
        return
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise StackError("MySQL is missing; as root: python -m devstack install mysql, then python -m devstack.mysql")
    suite, packages = PACKAGES[root]
    print(f"Fetching {packages} with debootstrap, about a minute …", file=sys.stderr, flush=True)
    aside = root.with_name(f"{root.name}-{os.getpid()}")
    aside.mkdir(mode=0o755, parents=True)
    # With mounts of its own: where it is killed, no /proc stays mounted in a folder that somebody removes.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={packages}", suite, str(aside)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
        if done.returncode:
            raise StackError(f"debootstrap ended with status {done.returncode}. It said:\n{done.stdout[-2000:]}")
        aside.rename(root)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    try:
        fetch()
    except StackError as error:
        raise SystemExit(str(error)) from None
