"""`python -m bench.retention`: purge half of a big table under live traffic, beside pt-archiver and one plain DELETE."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import pymysql
from sqlalchemy import text

from bench.live_chat import Latency, live_traffic
from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.mariadb import MariaDB
from devstack.stack import Stack

RESULTS = Path(__file__).parent / "results"
USERS = 2000
BUFFER_POOL = 1 << 30  # as on a server: the table fits into memory
REDO_LOG = 1 << 30  # so that no checkpoint stalls the server under anyone
BASELINE_SECONDS = 15
CHUNK = 100_000

# Old rows come first, as ids grow with time; one in five of them is unread and stays among those that go.
LOAD = """
    INSERT INTO chat_notifications
      (id, conversation_id, message_id, recipient_id, sender_id, title, body, is_sent, is_read, delivery_status, device_tokens,
       created_at)
    SELECT seq, 1 + seq % {conversations}, 1, 1 + seq * 7 % {users}, 1 + seq * 3 % {users}, 'New message',
           'When can you deliver? The customs office wants both papers before noon.', 1, seq <= {old} AND seq % 5 > 0, 'SENT',
           '["token-of-a-device-with-a-usual-length-of-about-140-characters-as-those-of-fcm-are"]',
           NOW() - INTERVAL IF(seq <= {old}, 100, 10) DAY
    FROM seq_{first}_to_{last}
"""
DUE = "created_at < NOW() - INTERVAL 90 DAY AND is_read = 1"


@dataclass(frozen=True, slots=True)
class Result:
    """What one contestant did: rows purged, seconds, and the live traffic's latency before and during it."""

    name: str
    rows: int
    seconds: float
    before: Latency
    during: Latency

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def harm(self) -> float:
        return self.during.p99 / self.before.p99


def _load(url: str, rows: int) -> None:
    engine = create_engine(url, read_seconds=600)
    create_shared_schema(engine)
    migrate(engine)
    old = rows * 5 // 8  # of which four in five are read: half of all
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET SESSION foreign_key_checks = 0, unique_checks = 0"))
        connection.execute(text(f"INSERT INTO users (id, first_name) SELECT seq, 'Ana' FROM seq_1_to_{USERS}"))
        connection.execute(
            text(
                "INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id)"
                f" SELECT seq, seq, seq, seq + {USERS // 2} FROM seq_1_to_{USERS // 2}"
            )
        )
        connection.execute(text("INSERT INTO messages (id, message_id, conversation_id, sender_id) VALUES (1, 'a', 1, 1)"))
        for first in range(1, rows + 1, CHUNK):
            last = min(first + CHUNK - 1, rows)
            statement = LOAD.format(conversations=USERS // 2, users=USERS, old=old, first=first, last=last)
            connection.execute(text(statement))
    engine.dispose()


class Field:
    """The database of the contest, loaded once and put back as it was before each contestant."""

    def __init__(self, server: MariaDB, url: str) -> None:
        self._server = server
        self.url = url
        self._tables = server.data / "tables"
        self._loaded = server.data / "loaded"

    def tune(self) -> None:
        """Give the server the memory and the redo log of a server; the stack's is a small one for tests."""
        with self._server.root() as cursor:
            cursor.execute(f"SET GLOBAL innodb_buffer_pool_size = {BUFFER_POOL}")
            cursor.execute(f"SET GLOBAL innodb_log_file_size = {REDO_LOG}")

    def keep(self) -> None:
        self._server.stop()
        shutil.copytree(self._tables, self._loaded)

    def fresh(self) -> None:
        """Start the server on the loaded tables, with the big one in memory."""
        self._server.stop()
        shutil.rmtree(self._tables)
        shutil.copytree(self._loaded, self._tables)
        os.sync()  # or the first seconds would pay for the copy
        self._server.start()
        self.tune()
        with self._server.root() as cursor:
            cursor.execute("SELECT COUNT(*), SUM(LENGTH(body)) FROM truck2_db.chat_notifications FORCE INDEX (PRIMARY)")
            cursor.execute("SELECT COUNT(*) FROM truck2_db.chat_notifications FORCE INDEX (idx_is_read) WHERE is_read >= 0")

    def due(self) -> int:
        with self._server.root() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM truck2_db.chat_notifications WHERE {DUE}")
            return int(cursor.fetchall()[0][0])

    def plain_delete(self) -> None:
        # If the live traffic wins a deadlock, the rows show it.
        with self._server.root() as cursor, suppress(pymysql.err.OperationalError):
            cursor.execute(f"DELETE FROM truck2_db.chat_notifications WHERE {DUE}")

    def pt_archiver(self) -> None:
        account = self._server.data / "pt-archiver.cnf"
        account.touch(mode=0o600)
        account.write_text(f"[client]\nuser=chat_workers\npassword={self._server.password}\n")
        source = f"F={account},h=127.0.0.1,P={self._server.port},D=truck2_db,t=chat_notifications"
        limits = ["--limit", "1000", "--commit-each", "--primary-key-only", "--no-check-charset"]
        self._run(["pt-archiver", "--source", source, "--where", DUE, "--purge", "--bulk-delete", *limits])

    def chat_workers(self) -> None:
        program = "import sys; sys.argv[0] = 'chat-workers'; from workers.cli import main; main()"
        self._run([sys.executable, "-c", program, "retention", "run", "--policy", "read_notifications"])

    def _run(self, command: list[str]) -> None:
        environment = {**os.environ, "DATABASE_URL": self.url, "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
        subprocess.run(command, env=environment, check=True, timeout=540)


def _contest(field: Field, name: str, purge: Callable[[], None], rows: int) -> Result:
    field.fresh()
    due = field.due()
    with live_traffic(field.url, read_from=rows - 100_000, users=USERS) as traffic:
        time.sleep(2)
        before = time.monotonic()
        time.sleep(BASELINE_SECONDS)
        began = time.monotonic()
        purge()
        ended = time.monotonic()
        time.sleep(1)
    result = Result(name, due - field.due(), ended - began, traffic.between(before, began), traffic.between(began, ended))
    click.echo(f"{name}: {result.rows:,} rows in {result.seconds:.1f} s", err=True)
    return result


def _table(results: list[Result]) -> str:
    other = next((r.rows_per_second for r in results if r.name == "pt-archiver"), None)
    names = ("rows/s", "x pt-archiver", "p50 ms", "p99 ms", "before", "x", "worst ms", "failed")
    widths = (10, 15, 9, 9, 9, 7, 10, 8)
    lines = [" " * 14 + "".join(name.rjust(width) for name, width in zip(names, widths, strict=True))]
    for r in results:
        ratio = f"{r.rows_per_second / other:.2f}" if other else "-"
        lines.append(
            f"{r.name:14}{r.rows_per_second:>10,.0f}{ratio:>15}{r.during.p50:>9.2f}{r.during.p99:>9.2f}{r.before.p99:>9.2f}"
            f"{r.harm:>7.2f}{r.during.worst:>10.1f}{r.during.failed:>8}"
        )
    return "\n".join(lines)


@click.command()
@click.option("--rows", default=2_000_000, show_default=True, help="Rows of the table; half of them go.")
@click.option("--rounds", default=1, show_default=True, help="Take each contestant's fastest of so many, in turn.")
@click.option("--only", multiple=True, help="Only this contestant.")
def main(rows: int, rounds: int, only: tuple[str, ...]) -> None:
    """Purge under live traffic: this project, pt-archiver --purge --bulk-delete, and one plain DELETE."""
    with Stack("bench-retention", ["mariadb"]) as stack:
        field = Field(stack.mariadb, stack.mariadb.url())
        click.echo(f"loading {rows:,} rows …", err=True)
        field.tune()
        _load(field.url, rows)
        field.keep()
        contestants = {"chat-workers": field.chat_workers, "pt-archiver": field.pt_archiver, "plain DELETE": field.plain_delete}
        chosen = {name: purge for name, purge in contestants.items() if not only or name in only}
        if "pt-archiver" in chosen and not shutil.which("pt-archiver"):
            raise click.ClickException("pt-archiver is missing; install with: sudo apt-get install percona-toolkit")
        # Other work on the machine slows some rounds; the fastest is the one it disturbed least.
        all_rounds = [[_contest(field, name, purge, rows) for name, purge in chosen.items()] for _ in range(rounds)]
        results = [min(tries, key=lambda result: result.seconds) for tries in zip(*all_rounds, strict=True)]
    table = _table(results)
    click.echo(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "retention.txt").write_text(table + "\n")
    (RESULTS / "retention.json").write_text(
        json.dumps({"rows": rows, "results": [asdict(r) for r in results]}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
