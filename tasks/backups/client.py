"""The dump and SQL client programs of this machine: the flags that each takes, and how it is told the workers' own connection.

The two families share no safe set of flags: --set-gtid-purged and --column-statistics are fatal to mariadb-dump and needed by
mysqldump, so the program is asked what it is. Nor do they read an address as the driver does (`localhost` is a socket to them,
11.8 demands TLS, a file of options is another file), so the driver connects first and its connection is described to them.
"""

import os
import re
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pymysql
import sqlalchemy
from pymysql.optionfile import Parser
from sqlalchemy import URL, Engine, text

from db.engine import CONNECT_SECONDS, READ_SECONDS, Connection, create_engine
from db.needs import Family, family_of
from tasks.backups.errors import BackupError

DUMPERS: Mapping[Family, tuple[str, ...]] = {
    "MariaDB": ("mariadb-dump", "mysqldump"),
    "MySQL": ("mysqldump", "mariadb-dump"),
}
SHELLS: Mapping[Family, tuple[str, ...]] = {"MariaDB": ("mariadb", "mysql"), "MySQL": ("mysql", "mariadb")}

TABLE_SECONDS = 1800.0
"""How long one table may take to be counted, its keys to be compared, or its values to be looked at."""

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
        # A server's bound on queries would end the dump of a large table; older clients do not know the option.
        "--loose-init-command=/*!50704 SET SESSION max_execution_time = 0 */",
    ),
}
SHELL_FLAGS = (
    "--batch",
    "--binary-mode",  # the text is data: no client commands in it but DELIMITER
    "--default-character-set=utf8mb4",  # the client's own default may be latin1
    "--local-infile=0",  # a dump may not read this host's files; the dump programs know no such option and send none
    "--max-allowed-packet=1G",
    # A table that the API holds open is not waited for all day. Rows that MariaDB has though they break a CHECK come back, too:
    # any session may turn those off, and a JSON column has one.
    "--init-command=SET SESSION lock_wait_timeout = 60 /*M!100201 , check_constraint_checks = 0 */",
)

# A client whose worker was killed must not go on with what is in its pipe beside the next run's.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
# A dump is written by the block: by C's usual 4 KiB each block wakes the reader, which takes a tenth of the whole time.
BUFFERED = ("stdbuf", "--output=64K")
PIPE_BYTES = 1 << 20
VERSION_SECONDS = 10
LONGEST_COMPLAINT = 500
TAIL_BYTES = 1 << 16

# How the driver's connection is encrypted (whose certificate it takes) -> the clients' options for just that. Without the
# host's name MariaDB's client looks at nothing: encrypted, it takes any certificate.
Trust = Literal["plain", "any", "authority", "host"]
TLS: Mapping[Family, Mapping[Trust, tuple[str, ...]]] = {
    "MariaDB": {
        "plain": ("skip-ssl",),
        "any": ("ssl", "skip-ssl-verify-server-cert"),
        "authority": ("ssl", "skip-ssl-verify-server-cert"),
        "host": ("ssl", "ssl-verify-server-cert"),
    },
    "MySQL": {
        "plain": ("ssl-mode=DISABLED", "loose-get-server-public-key"),  # the driver asks for the key, too
        "any": ("ssl-mode=REQUIRED",),
        "authority": ("ssl-mode=VERIFY_CA",),
        "host": ("ssl-mode=VERIFY_IDENTITY",),
    },
}
TLS_FILES = ("ca", "capath", "cert", "key", "cipher")
# Behind these words the server quotes a row or a statement, or its beginning if a line ends in it; and what a trigger of the
# API's says in an error of its own may be anything.
QUOTED_VALUE = re.compile(r"""\b(entry|near|value:?|text:?) (['"])(?:.*\2|.*)""")
OWN_WORDS = re.compile(r"(\(45000\) at line \d+: ).*")


@dataclass(frozen=True, slots=True)
class Client:
    """A program of this machine and what it says it is."""

    program: str
    family: Family
    version: str


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
def schema_engine(url: URL, name: str) -> Iterator[Engine]:
    """Yield an engine for a schema of the URL's server and account, patient enough to count big tables."""
    engine = create_engine(url.set(database=name).render_as_string(hide_password=False), read_seconds=TABLE_SECONDS)
    try:
        yield engine
    finally:
        engine.dispose()


def _described(url: URL, family: Family) -> Iterator[str]:
    """Connect as the workers do and yield the options with which a client does the same. Raise BackupError if that fails."""
    try:
        options = sqlalchemy.create_engine(url).dialect.create_connect_args(url)[1]
        safely = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "local_infile": False}
        with Connection(**{**options, **safely}) as driver:
            trust = _trust(driver)
    except (pymysql.MySQLError, OSError, ValueError) as error:
        raise BackupError(f"the database {url.host}/{url.database} cannot be reached: {error}") from None
    place = {"protocol": "tcp", "host": driver.host, "port": driver.port}
    if driver.unix_socket:
        place = {"protocol": "socket", "socket": driver.unix_socket}
    files = {f"ssl-{name}": url.query.get(f"ssl_{name}") for name in TLS_FILES}
    if path := url.query.get("read_default_file"):
        parser, group = Parser(), str(url.query.get("read_default_group", "client"))
        parser.read(Path(str(path)).expanduser())
        files |= {name: parser.get(group, name) for name in files if not files[name] and parser.has_option(group, name)}
    if trust in {"authority", "host"} and not (files["ssl-ca"] or files["ssl-capath"]):
        files["ssl-ca"] = ssl.get_default_verify_paths().cafile
    account = {"user": _text(driver.user), "password": _text(driver.password)}
    for key, value in {**place, **account, **(files if trust != "plain" else {})}.items():
        if value:
            yield f"{key}={_quoted(str(value))}"
    yield from TLS[family][trust]


def _trust(driver: Any) -> Trust:
    if driver.unix_socket or not driver._secure:
        return "plain"
    if driver.ctx.verify_mode is ssl.CERT_NONE:
        return "any"
    return "host" if driver.ctx.check_hostname else "authority"


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin1") if isinstance(value, bytes) else value  # as the driver has encoded it


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
        """Return its own errors and the server's on stderr, on one line; the statements that stand beside them hold rows."""
        end = self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, end - TAIL_BYTES))
        lines = self._complaints.read().decode(errors="replace").splitlines()
        said = [line for line in lines if line.startswith(("ERROR ", f"{self._name}: ")) and "[Warning]" not in line]
        return OWN_WORDS.sub(r"\1…", QUOTED_VALUE.sub(r"\1 '…'", " ".join(" ".join(said).split())))[:LONGEST_COMPLAINT]


@contextmanager
def running(client: Client, arguments: tuple[str, ...], url: URL, *, writes: bool) -> Iterator[Child]:
    """Run a client with the URL's account; its stdout (`writes`) or its stdin is a pipe. It never outlives the block."""
    # Neither argv nor the environment of a process is private; the file of options has no name and no reader but the child.
    described = "".join(f"{line}\n" for line in ("[client]", *_described(url, client.family)))
    with os.fdopen(os.memfd_create("client-options"), "wb") as options, tempfile.TemporaryFile() as complaints:
        os.fchmod(options.fileno(), 0o600)  # the clients ignore an option file that others may write
        options.write(described.encode())
        options.flush()
        file = f"--defaults-file=/dev/fd/{options.fileno()}"
        process = subprocess.Popen(
            [*WITH_US, *(BUFFERED if writes else ()), client.program, file, *arguments],
            stdin=subprocess.DEVNULL if writes else subprocess.PIPE,
            stdout=subprocess.PIPE if writes else subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=[options.fileno()],
            env=_environment(),
            pipesize=PIPE_BYTES,
        )
        try:
            yield Child(client.program, process, complaints)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what it did not read any more
                        pipe.close()
