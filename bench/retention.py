"""`python -m bench.retention`: purge half of a big table under live traffic, beside pt-archiver and one plain DELETE."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import pymysql
from sqlalchemy import text

from bench.live_chat import Latency, Sample, latency, live_traffic
from bench.place import place
from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack import programs
from devstack.mariadb import MariaDB
from devstack.stack import Stack

RESULTS = Path(__file__).parent / "results"
USERS = 2000
BUFFER_POOL = 1 << 30  # as on a server: the table fits into memory
REDO_LOG = 1 << 30  # so that no checkpoint stalls the server under anyone
BASELINE_SECONDS = 8
READING_SECONDS = 8
SETTLING_SECONDS = 120
CHUNK = 100_000
CONTESTANTS = ("only reading", "chat-workers", "chat-workers, gentle", "pt-archiver", "plain DELETE")

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
# One contestant gives way for as long as it works.
GENTLE = {"BATCHES_SECONDS": "0.01", "BATCHES_REST": "1"}
DUE = "created_at < NOW() - INTERVAL 90 DAY AND is_read = 1"


@dataclass(frozen=True, slots=True)
class Round:
    """What one contestant did once. It is settled once InnoDB's purge threads have cleared away what it deleted."""

    rows: int
    seconds: float
    settled_seconds: float
    server_cpu_seconds: float
    before: list[Sample]
    during: list[Sample]
    after: list[Sample]


@dataclass(frozen=True, slots=True)
class Result:
    """A contestant over all rounds: medians, and the latency of the live traffic over the samples of all of them."""

    name: str
    rows: int
    seconds: float
    settled_seconds: float
    server_cpu_seconds: float
    during: Latency
    after: Latency

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def settled_rows_per_second(self) -> float:
        return self.rows / self.settled_seconds


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
            cursor.execute("SET GLOBAL innodb_monitor_enable = 'purge_del_mark_records'")

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

    def server_cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self, rows: int) -> None:
        """Wait until InnoDB's purge has cleared away so many rows since the server's start. Its queue is no measure, for that
        counts transactions, and one DELETE of a million rows is one.
        """
        deadline = time.monotonic() + SETTLING_SECONDS
        with self._server.root() as cursor:
            while time.monotonic() < deadline:
                cursor.execute("SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'purge_del_mark_records'")
                if int(cursor.fetchall()[0][0]) >= rows:
                    return
                time.sleep(0.1)
        raise click.ClickException(f"the purge was not done within {SETTLING_SECONDS} s")

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

    def chat_workers(self, **settings: str) -> None:
        self._workers("run", **settings)

    def only_reading(self) -> None:
        """The control: what a process beside the live traffic costs that writes nothing."""
        until = time.monotonic() + READING_SECONDS
        while time.monotonic() < until:
            self._workers("plan")

    def _workers(self, command: str, **settings: str) -> None:
        program = "import sys; sys.argv[0] = 'chat-workers'; from workers.cli import main; main()"
        self._run([sys.executable, "-c", program, "retention", command, "--policy", "read_notifications"], **settings)

    def _run(self, command: list[str], **settings: str) -> None:
        environment = {**os.environ, "DATABASE_URL": self.url, "CELERY_BROKER_URL": "redis://127.0.0.1:1/0", **settings}
        subprocess.run(command, env=environment, check=True, timeout=540, stdout=sys.stderr)


def _contest(field: Field, name: str, purge: Callable[[], None], rows: int) -> Round:
    field.fresh()
    due = field.due()
    with live_traffic(field.url, read_from=rows - 100_000, users=USERS) as traffic:
        time.sleep(2)
        before = time.monotonic()
        time.sleep(BASELINE_SECONDS)
        began, cpu = time.monotonic(), field.server_cpu_seconds()
        purge()
        ended = time.monotonic()
        gone = due - field.due()
        field.settle(gone)
        settled = time.monotonic()
        cpu = field.server_cpu_seconds() - cpu
        time.sleep(1)
    click.echo(f"{name}: {gone:,} rows in {ended - began:.1f} s", err=True)
    between = traffic.between
    return Round(
        gone,
        ended - began,
        settled - began,
        cpu,
        between(before, began),
        between(began, ended),
        between(ended, max(settled, ended + 1)),
    )


def _result(name: str, rounds: Iterable[Round]) -> Result:
    done = list(rounds)
    median = statistics.median
    return Result(
        name,
        round(median(r.rows for r in done)),
        median(r.seconds for r in done),
        median(r.settled_seconds for r in done),
        median(r.server_cpu_seconds for r in done),
        latency(sample for r in done for sample in r.during),
        latency(sample for r in done for sample in r.after),
    )


def _table(results: list[Result], baseline: Latency) -> str:
    other = next((r for r in results if r.name == "pt-archiver"), None)
    names = (
        *("rows/s", "x pt-arch.", "p50 ms", "p99 ms", "x base", "worst ms", "failed"),
        *("p99 after", "settled s", "x pt-arch.", "CPU s"),
    )
    lines = [
        f"live traffic alone: p50 {baseline.p50:.2f} ms, p99 {baseline.p99:.2f} ms over {baseline.statements:,} statements",
        " " * 20 + "".join(name.rjust(11) for name in names),
    ]
    for r in results:
        ratio = f"{r.rows_per_second / other.rows_per_second:.2f}" if other and r.rows else "-"
        settled_ratio = f"{r.settled_rows_per_second / other.settled_rows_per_second:.2f}" if other and r.rows else "-"
        cells = (
            f"{r.rows_per_second:,.0f}",
            ratio,
            f"{r.during.p50:.2f}",
            f"{r.during.p99:.2f}",
            f"{r.during.p99 / baseline.p99:.2f}",
            f"{r.during.worst:.1f}",
            str(r.during.failed),
            f"{r.after.p99:.2f}",
            f"{r.settled_seconds:.1f}",
            settled_ratio,
            f"{r.server_cpu_seconds:.1f}",
        )
        lines.append(f"{r.name:20}" + "".join(cell.rjust(11) for cell in cells))
    return "\n".join(lines)


@click.command()
@click.option(
    "--rows", default=2_000_000, type=click.IntRange(300_000), show_default=True, help="Rows of the table; half of them go."
)
@click.option("--rounds", default=3, show_default=True, help="Each contestant's median of so many, in turn.")
@click.option("--only", type=click.Choice(CONTESTANTS), multiple=True, help="Only this contestant; may be given again.")
def main(rows: int, rounds: int, only: tuple[str, ...]) -> None:
    """Purge under live traffic: this project, pt-archiver --purge --bulk-delete, and one plain DELETE."""
    chosen = [name for name in CONTESTANTS if not only or name in only]
    programs.ensure(["bench"])
    with Stack("bench-retention", ["mariadb"]) as stack:
        field = Field(stack.mariadb, stack.mariadb.url())
        click.echo(f"loading {rows:,} rows …", err=True)
        field.tune()
        _load(field.url, rows)
        field.keep()
        ways: tuple[Callable[[], None], ...] = (
            field.only_reading,
            field.chat_workers,
            partial(field.chat_workers, **GENTLE),
            field.pt_archiver,
            field.plain_delete,
        )
        contestants = dict(zip(CONTESTANTS, ways, strict=True))
        all_rounds = [[_contest(field, name, contestants[name], rows) for name in chosen] for _ in range(rounds)]
    results = [_result(name, tries) for name, tries in zip(chosen, zip(*all_rounds, strict=True), strict=True)]
    # One baseline for all: the traffic before each contestant is the same traffic.
    baseline = latency(sample for tries in all_rounds for each in tries for sample in each.before)
    table = f"measured: {place()}\n{_table(results, baseline)}"
    click.echo(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "retention.txt").write_text(table + "\n")
    report = {"rows": rows, "rounds": rounds, "baseline": asdict(baseline), "results": [asdict(r) for r in results]}
    (RESULTS / "retention.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
