"""The dump and SQL client programs of this machine: the flags that each takes, and how it is given the password.

The two families share no safe set of flags: --set-gtid-purged and --column-statistics are fatal to mariadb-dump and needed by
mysqldump, so the program is asked what it is.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from sqlalchemy import URL, Engine, text

from tasks.backups.errors import BackupError

Family = Literal["MariaDB", "MySQL"]

DUMPERS: Mapping[Family, tuple[str, ...]] = {
    "MariaDB": ("mariadb-dump", "mysqldump"),
    "MySQL": ("mysqldump", "mariadb-dump"),
}
SHELLS: Mapping[Family, tuple[str, ...]] = {"MariaDB": ("mariadb", "mysql"), "MySQL": ("mysql", "mariadb")}

DUMP_FLAGS = (
    "--single-transaction",  # one REPEATABLE READ snapshot of all tables; no locks that the API would wait for
    "--skip-lock-tables",
    "--quick",  # row by row: memory stays flat
    "--hex-blob",
    "--default-character-set=utf8mb4",
    "--tz-utc",
    "--no-tablespaces",  # else mysqldump wants the PROCESS privilege
    "--triggers",
    "--max-allowed-packet=1G",
    "--net-buffer-length=262144",  # the length of an INSERT; the same everywhere, for digests of dumps are compared
)
FAMILY_DUMP_FLAGS: Mapping[Family, tuple[str, ...]] = {
    "MariaDB": (),
    "MySQL": (
        "--set-gtid-purged=OFF",  # else the dump carries the server's GTIDs and restores on no other
        "--column-statistics=0",  # else it asks for a table that older servers and MariaDB do not have
    ),
}
SHELL_FLAGS = (
    "--batch",
    "--binary-mode",  # the text is data: no client commands in it but DELIMITER
    "--default-character-set=utf8mb4",  # the client's own default may be latin1
    "--local-infile=0",  # a dump may not read this host's files; the dump programs know no such option and send none
    "--max-allowed-packet=1G",
    # A table that the API holds open is not waited for all day.
    "--init-command=SET SESSION lock_wait_timeout = 60",
)

VERSION_SECONDS = 10
LONGEST_COMPLAINT = 500

# SQLAlchemy's name (a URL's query) -> the clients' own.
# An authority alone makes neither client look at whose certificate it is.
VERIFY: Mapping[Family, str] = {"MariaDB": "ssl-verify-server-cert", "MySQL": "ssl-mode=VERIFY_IDENTITY"}
TLS_OPTIONS = {"ssl_ca": "ssl-ca", "ssl_cert": "ssl-cert", "ssl_key": "ssl-key"}


@dataclass(frozen=True, slots=True)
class Client:
    """A program of this machine and what it says it is."""

    program: str
    family: Family
    version: str


def family_of(version: str) -> Family:
    """Return whose a server or client is, by its version text."""
    return "MariaDB" if "MariaDB" in version else "MySQL"


def find_client(programs: tuple[str, ...]) -> Client:
    """Return the first of these programs that is there. Raise BackupError if none is."""
    for name in programs:
        if path := shutil.which(name):
            done = subprocess.run(
                [path, "--version"], env=_environment(), capture_output=True, text=True, timeout=VERSION_SECONDS
            )
            if done.returncode == 0:
                version = done.stdout.strip().removeprefix(path).strip()
                return Client(path, family_of(version), version)
    raise BackupError(f"neither {' nor '.join(programs)} is on this machine; install mariadb-client or mysql-client")


def server_family(engine: Engine) -> Family:
    """Return whose the engine's server is."""
    with engine.connect() as connection:
        return family_of(connection.execute(text("SELECT VERSION()")).scalar_one())


@contextmanager
def option_file(url: URL, family: Family) -> Iterator[int]:
    """Yield a descriptor to pass to a client as --defaults-file=/dev/fd/N: the account, in memory, for the child alone.

    Neither argv nor the environment of a process is private; this file has no name and no other reader.
    """
    values = {
        "host": url.host,
        "port": str(url.port or 3306) if url.host else None,
        "user": url.username,
        "password": None if url.password is None else str(url.password),
        "socket": url.query.get("unix_socket"),
        **{option: url.query.get(name) for name, option in TLS_OPTIONS.items()},
    }
    lines = ["[client]", *(f"{key}={_quoted(str(value))}" for key, value in values.items() if value)]
    if url.query.get("ssl_ca"):
        lines.append(VERIFY[family])
    descriptor = os.memfd_create("client-options")
    try:
        os.fchmod(descriptor, 0o600)  # the clients ignore an option file that others may write
        os.write(descriptor, "\n".join([*lines, ""]).encode())
        yield descriptor
    finally:
        os.close(descriptor)


def _quoted(value: str) -> str:
    # https://dev.mysql.com/doc/refman/8.4/en/option-files.html: quotes keep '#' and blanks, backslash escapes.
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'


def _environment() -> dict[str, str]:
    # Nothing of ours: DATABASE_URL holds the password and AWS_* the keys to the bucket.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


class Child:
    """A client process, its one pipe, and what it complains of."""

    def __init__(self, program: str, process: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
        self.process = process
        self._name = Path(program).name
        self._complaints = complaints

    def finish(self, doing: str, meanings: Mapping[int, str]) -> None:
        """Wait for its end. Raise BackupError, with its own words, unless all went well."""
        if code := self.process.wait():
            meaning = meanings.get(code, "it was killed" if code < 0 else "it failed")
            reason = self.complaint() or "it gave no reason"
            raise BackupError(f"{self._name} ended with status {code} ({meaning}) while {doing}: {reason}")

    def complaint(self) -> str:
        """Return the beginning of what it wrote to stderr, on one line."""
        self._complaints.seek(0)
        return " ".join(self._complaints.read(LONGEST_COMPLAINT).decode(errors="replace").split())


@contextmanager
def running(client: Client, arguments: tuple[str, ...], url: URL, *, writes: bool) -> Iterator[Child]:
    """Run a client with the URL's account; its stdout (`writes`) or its stdin is a pipe. It never outlives the block."""
    with option_file(url, client.family) as options, tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [client.program, f"--defaults-file=/dev/fd/{options}", *arguments],
            stdin=subprocess.DEVNULL if writes else subprocess.PIPE,
            stdout=subprocess.PIPE if writes else subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=[options],
            env=_environment(),
            bufsize=0,
        )
        try:
            yield Child(client.program, process, complaints)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
