"""The database's disk is lost under live traffic: the bucket alone brings back the newest dump, binary logs all the rest."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from db.rows import dicts
from devstack.chat import load_chat
from devstack.mysql import MySQL
from devstack.stack import Stack
from settings import get_settings
from tasks.backups.manifest import Binlog
from tasks.backups.run import Backups
from tests.backups.conftest import FEW_ITERATIONS, logging, quiet, replay
from tests.processes import wait_until

WRITERS = 3
PARENTS = ("users", "shipments", "bids")
INSERT = text("INSERT INTO messages (message_id, conversation_id, sender_id, message_text) VALUES (:id, 1, 1, :said)")
READ = text(
    "INSERT INTO message_reads (message_id, conversation_id, reader_id) SELECT id, 1, 2 FROM messages WHERE message_id = :id"
)
CHANGE = text("UPDATE messages SET message_text = :said WHERE message_id = :id")
UNREAD = text("DELETE r FROM message_reads r JOIN messages m ON m.id = r.message_id WHERE m.message_id = :id")
DELETE = text("DELETE FROM messages WHERE message_id = :id")
# A message without its read mark, or the other way round, is half a transaction.
AUDIT = text("""
    SELECT m.message_id, m.message_text, COUNT(r.id) FROM messages m LEFT JOIN message_reads r ON r.message_id = m.id
    WHERE m.message_id LIKE 'live-%' GROUP BY m.id
""")


class Traffic:
    """Writers of messages, each said, read, often changed and sometimes deleted; and the tape of what the server confirmed."""

    def __init__(self, engine: Engine) -> None:
        self.tape: list[tuple[str, str | None]] = []
        """Message and text (None: deleted) of each commit that was confirmed, in that order for each message."""
        self.begun: list[tuple[str, str | None]] = []
        self._engine, self._stop = engine, threading.Event()
        self._threads = [threading.Thread(target=self._write, args=[number]) for number in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, writer: int) -> None:
        for number in range(1_000_000):
            message, changed = f"live-{writer}-{number}", f"live-{writer}-{number - 3}"
            steps = (message, f"said {number}"), (changed, f"changed {number}"), (changed, None)
            for name, said in steps[: 1 + number % 3 if number > 2 else 1]:
                if self._stop.is_set():
                    return
                self.begun.append((name, said))
                try:
                    with self._engine.begin() as connection:
                        if said is None:
                            connection.execute(UNREAD, {"id": name})
                            connection.execute(DELETE, {"id": name})
                        elif name == message:
                            connection.execute(INSERT, {"id": name, "said": said})
                            connection.execute(READ, {"id": name})
                        else:
                            connection.execute(CHANGE, {"id": name, "said": said})
                except DBAPIError:
                    return  # the disk is lost
                self.tape.append((name, said))

    def audit(self, restored: Engine, before: int, after: int) -> int:
        """Return how many messages are there. Fail unless each is as the first `before` confirmed commits left it, or as one of
        those made it that were begun since, and were among the first `after`.
        """
        known, may_be = dict(self.tape[:before]), defaultdict[str, set[str | None]](set)
        for name, said in {*self.begun[:after]} - {*self.tape[:before]}:
            may_be[name].add(said)
        with restored.connect() as connection:
            rows = {name: (said, reads) for name, said, reads in connection.execute(AUDIT)}
        assert {reads for _, reads in rows.values()} == {1}
        texts = {name: said for name, (said, _) in rows.items()}
        wrong = [name for name in {*known, *may_be, *rows} if texts.get(name) not in {known.get(name), *may_be[name]}]
        assert not wrong
        return len(rows)


def run(*arguments: str, **environment: str) -> str:
    """Run `chat-workers backups …` on the fresh host, which has nothing but its environment."""
    command = [sys.executable, "-c", "from workers.cli import main; main()", "backups", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_comes_back_when_the_disk_is_lost_under_live_traffic(
    stack: Stack, environment: dict[str, str], passphrase_file: Path, into: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bucket = f"s3://backups/{uuid4().hex}"
    own = {"backup_dir": into, "backup_passphrase_file": passphrase_file, "backup_s3_uri": bucket, "backup_s3_ship": "daily"}
    with ExitStack() as undo:
        lost = undo.enter_context(logging("lost", elsewhere / "binlog"))
        engine = create_engine(lost.mariadb.url())
        create_shared_schema(engine)
        migrate(engine)
        with engine.begin() as connection:
            load_chat(connection, users=20, conversations=20, notifications=50)
            parents = {table: dicts(connection, text(f"SELECT * FROM {table}")) for table in PARENTS}
        if isinstance(lost.mariadb, MySQL):
            with lost.mariadb.root() as cursor:
                cursor.execute("GRANT REPLICATION CLIENT ON *.* TO chat_workers@'127.0.0.1'")
        backups = Backups(engine, get_settings().model_copy(update=own), FEW_ITERATIONS)
        traffic = Traffic(engine)
        undo.callback(traffic.stop)
        wait_until(lambda: len(traffic.tape) > 60, "there is traffic")
        before = len(traffic.tape)
        backups.daily(quiet)
        after = len(traffic.begun)
        wait_until(lambda: len(traffic.tape) > after + 200, "more is written")
        shutil.rmtree(lost.mariadb._tables)
        lost.mariadb.kill()
        traffic.stop()
        shutil.rmtree(into)
        into.mkdir(mode=0o700)

        fresh = undo.enter_context(Stack(f"fresh-{os.getpid()}", ["mariadb"]))
        target = create_engine(fresh.mariadb.url())
        create_shared_schema(target)
        migrate(target)
        with target.begin() as connection:  # their owner's backup
            for table, rows in parents.items():
                for row in rows:
                    names = ", ".join(row)
                    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES (:{names.replace(', ', ', :')})"), row)
        host = {**environment, "DATABASE_URL": fresh.mariadb.url(), "BACKUP_S3_URI": bucket, "BACKUP_DIR": str(into)}
        host["BACKUP_PASSPHRASE_FILE"] = str(passphrase_file)
        (name,) = [entry["name"] for entry in json.loads(run("list", "--json", **host))["backups"]]
        said = run("show", name, **host)
        restored = run("restore", name, **host)
        for variable in ("BINLOGS=", "POSITION="):
            assert said.partition(variable)[2].split()[0] == restored.partition(variable)[2].split()[0]
        assert traffic.audit(target, before, after) > 20

        file, position = said.partition("BINLOGS=")[2].split()[0], int(said.partition("POSITION=")[2].split()[0])
        logs = [path for path in sorted(elsewhere.glob("binlog.0*")) if path.name >= file]
        replay(
            fresh,
            logs,
            Binlog(file=file, position=position),
            tmp_path,
            FROM="truck2_db",
            DATABASE="truck2_db",
            STOP="2038-01-01 00:00:00",
        )
        assert traffic.audit(target, len(traffic.tape), len(traffic.begun)) > 100
        engine.dispose()
        target.dispose()
