"""Backups beside the reference's shell pipelines, over the same rows: wall time, peak memory and size.

`python -m bench.backups [--rows N] [--rounds N]` prints one table of ratios and writes bench/results/backups.{json,txt}.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click
from sqlalchemy import Engine, text

from bench.place import place
from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from db.models import CHAT_TABLES
from devstack.chat import TEXTS, load_chat
from devstack.stack import Stack

RESULTS = Path(__file__).parent / "results"
TABLES = " ".join(CHAT_TABLES)

# The reference's own commands; -pbkdf2 is added, since without it openssl warns that the key derivation is deprecated.
REFERENCE = {
    "dump": f"mysqldump --defaults-extra-file=my.cnf truck2_db {TABLES} > backup_chat.sql && sync backup_chat.sql",
    "week": "tar czf - backup_chat.sql | openssl enc -aes-256-cbc -pbkdf2 -pass file:passphrase -out week.tar.gz.enc"
    " && sync week.tar.gz.enc",
}
# What someone would write who wants ours by hand.
BY_HAND = {
    "dump": "set -o pipefail; mariadb-dump --defaults-extra-file=my.cnf --single-transaction --quick --hex-blob"
    f" truck2_db {TABLES} | zstd -q -1 -f -o by_hand.sql.zst && sync by_hand.sql.zst",
    "restore": "set -o pipefail; zstd -qdc by_hand.sql.zst"
    " | mariadb --defaults-extra-file=my.cnf --default-character-set=utf8mb4 truck2_db_drill",
}
OURS = """
import json, resource, sys, time
from db.engine import get_engine
from settings import get_settings
from tasks.backups.run import Backups
backups = Backups(get_engine(), get_settings())
def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
options = {"tier": "daily"} if sys.argv[1] == "drill" else {"force": True}
if sys.argv[1] == "daily":  # as in a worker that is up: connected, and with the key that signs made, once a process
    backups.daily(lambda _: None, **options)
started, before = time.monotonic(), cpu()
run = getattr(backups, sys.argv[1])(lambda _: None, **options)
seconds = run.restore_milliseconds / 1000 or time.monotonic() - started
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps({"seconds": seconds, "cpu": cpu() - before, "peak": peak, "bytes": run.bytes}))
"""
SHELL = """
import json, resource, subprocess, sys, time
started = time.monotonic()
subprocess.run(["bash", "-c", sys.argv[1]], check=True)
seconds = time.monotonic() - started
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss}))
"""


@dataclass(frozen=True)
class Measured:
    """The median of the rounds: seconds, CPU seconds of the client's side, peak KiB of the largest process, bytes made."""

    seconds: float
    cpu: float
    peak: int
    bytes: int


def fill(engine: Engine, rows: int) -> None:
    """Bring the chat to `rows` messages, as different from each other as people's are."""
    with engine.begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0, UNIQUE_CHECKS = 0"))
        first = connection.execute(text("SELECT COALESCE(MAX(id), 0) + 1 FROM messages")).scalar_one()
        said = ", ".join("'" + words.replace("'", "''") + "'" for words in TEXTS)
        for start in range(first, rows + 1, 100_000):
            connection.execute(
                text(
                    "INSERT INTO messages (id, message_id, conversation_id, sender_id, message_text)"
                    f" SELECT seq, UUID(), 1 + seq MOD 5000, 1 + seq MOD 2000, "
                    f" CONCAT(ELT(1 + FLOOR(RAND() * {len(TEXTS)}), {said}), ' ', TO_BASE64(UNHEX(MD5(RAND()))))"
                    f" FROM seq_{start}_to_{min(start + 99_999, rows)}"
                )
            )
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1, UNIQUE_CHECKS = 1"))


def measured(program: str, argument: str, environment: dict[str, str], work: Path, artefact: str = "") -> Measured:
    done = subprocess.run(
        [sys.executable, "-c", program, argument], env=environment, cwd=work, capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    return Measured(
        figures["seconds"], figures["cpu"], figures["peak"], figures.get("bytes") or (work / artefact).stat().st_size
    )


def middle(rounds: list[Measured]) -> Measured:
    return Measured(
        round(median(one.seconds for one in rounds), 3),
        round(median(one.cpu for one in rounds), 3),
        max(one.peak for one in rounds),
        max(one.bytes for one in rounds),
    )


@contextmanager
def restored(environment: dict[str, str]) -> Iterator[None]:
    """Have the drills' schema, empty, for the block."""
    engine = create_engine(environment["DATABASE_URL"])
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE truck2_db_drill"))
        yield
        connection.execute(text("DROP DATABASE truck2_db_drill"))
    engine.dispose()


def compare(environment: dict[str, str], work: Path, rounds: int) -> dict[str, Measured]:
    """Return the figures of each way, measured in turns so that the machine's moods fall on all of them; restores once."""
    ways: dict[str, list[Measured]] = {}
    for _ in range(rounds):
        for name, argument, program, artefact in (
            ("reference dump", REFERENCE["dump"], SHELL, "backup_chat.sql"),
            ("our dump", "daily", OURS, ""),
            ("by hand dump", BY_HAND["dump"], SHELL, "by_hand.sql.zst"),
            ("reference week", REFERENCE["week"], SHELL, "week.tar.gz.enc"),
            ("our week", "weekly", OURS, ""),
        ):
            if name == "our week":  # of one dump, as the reference's
                for earlier in sorted((work / "backups").glob("backup_chat_2*"), key=lambda path: path.stat().st_mtime_ns)[:-2]:
                    earlier.unlink()
            ways.setdefault(name, []).append(measured(program, argument, environment, work, artefact))
    drilled = [measured(OURS, "drill", environment, work)]  # whose clients are in its CPU; the comparison is not in its seconds
    with restored(environment):
        ways["by hand restore"] = [measured(SHELL, BY_HAND["restore"], environment, work, "by_hand.sql.zst")]
    ways["our restore"] = drilled
    return {name: middle(figures) for name, figures in ways.items()}


def table(results: dict[int, dict[str, Measured]]) -> str:
    lines = [
        f"{'messages':>10}  {'what':16} {'seconds':>8} {'CPU s':>6} {'of the plain':>13} {'peak MB':>8} {'artefact MB':>12}"
    ]
    for rows, ways in results.items():
        for name, one in ways.items():
            plain = ways.get(f"reference {name.split()[-1]}", ways["by hand restore"])
            ratio = f"{one.seconds / plain.seconds:.2f}x"
            lines.append(
                f"{rows:>10,}  {name:16} {one.seconds:>8.2f} {one.cpu:>6.2f} {ratio:>13} {one.peak / 1024:>8.0f}"
                f" {one.bytes / 1e6:>12.1f}"
            )
        both = {who: ways[f"{who} dump"].seconds + ways[f"{who} week"].seconds for who in ("reference", "our")}
        lines.append(
            f"{rows:>10,}  {'our dump + week':16} {both['our']:>8.2f} {'':6} {both['our'] / both['reference']:>12.2f}x"
        )
    return "\n".join(lines)


@click.command()
@click.option("--rows", default=1_000_000, show_default=True, help="Messages at most; measured at a quarter of them too.")
@click.option("--rounds", default=3, show_default=True, help="Each way's median of so many, in turn.")
def main(rows: int, rounds: int) -> None:
    """Measure, print the table and write it down."""
    with Stack(f"bench-backups-{os.getpid()}", ["mariadb"]) as stack, tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "backups").mkdir(mode=0o700)
        for name, content in {
            "passphrase": "correct horse battery staple\n",
            "my.cnf": "[client]\nhost=127.0.0.1\nuser=chat_workers\n"
            f"port={stack.mariadb.port}\npassword={stack.mariadb.password}\n",
        }.items():
            (work / name).touch(mode=0o600)
            (work / name).write_text(content)
        environment = {
            **os.environ,
            **stack.environment,
            "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
            "BACKUP_DIR": str(work / "backups"),
            "BACKUP_PASSPHRASE_FILE": str(work / "passphrase"),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        engine = create_engine(stack.mariadb.url(), read_seconds=600)
        create_shared_schema(engine)
        migrate(engine)
        with engine.begin() as connection:
            load_chat(connection)
        results = {}
        for size in (rows // 4, rows):
            fill(engine, size)
            results[size] = compare(environment, work, rounds)
        engine.dispose()
    report = f"measured: {place()}\n{table(results)}"
    click.echo(report)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "backups.txt").write_text(report + "\n")
    figures = {str(size): {name: asdict(one) for name, one in ways.items()} for size, ways in results.items()}
    (RESULTS / "backups.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
