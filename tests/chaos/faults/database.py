"""MariaDB: killed, hung, stuttering, full of connections, read-only; its tables locked by the API."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pymysql

from db.transactions import CONTENTION
from tests.chaos.client import connect
from tests.chaos.faults.base import Play

FEWEST_CONNECTIONS = 10  # the least that max_connections takes
TOO_MANY_CONNECTIONS, READ_ONLY = 1040, 1290
# Of the newest notifications: some wait, some are being sent.
NEWEST = "SELECT id FROM chat_notifications WHERE id < 1000000000 ORDER BY id DESC LIMIT %s"
UNREAD = "UPDATE chat_notifications SET read_at = NULL WHERE id = %s AND is_read = 0"


def kill(play: Play) -> None:
    """SIGKILL the server and start it again after a while, to recover from its log."""
    play.scene.stack.mariadb.kill()
    play.bit()
    play.wait(play.chance.uniform(0, 5))
    play.scene.stack.mariadb.start()


def restart(play: Play) -> None:
    """Stop the server in good order and start it again."""
    play.scene.stack.mariadb.restart()
    play.bit()


def pause(play: Play) -> None:
    """Let the server hang: connections stay open and nothing answers."""
    play.scene.stack.mariadb.pause()
    play.bit()
    try:
        play.wait(play.chance.uniform(2, 8))
    finally:
        play.scene.stack.mariadb.resume()


def stutter(play: Play) -> None:
    """Make every statement slow: the server runs a quarter of the time."""
    ends_at = time.monotonic() + play.chance.uniform(3, 8)
    while time.monotonic() < ends_at and not play.over.is_set():
        play.scene.stack.mariadb.pause()
        play.bit()
        try:
            play.wait(0.3)
        finally:
            play.scene.stack.mariadb.resume()
        play.wait(0.1)


def exhaust_connections(play: Play) -> None:
    """Cut all connections and take no more than a few new ones; another service of the API's takes what it can get of them."""
    with play.scene.stack.mariadb.root() as cursor:
        cursor.execute(f"SET GLOBAL max_connections = {FEWEST_CONNECTIONS}")
        try:
            for _ in range(3):
                cut_connections(cursor)
                with ExitStack() as taken:
                    try:
                        while True:
                            taken.enter_context(connect(play.scene.engine.url))
                    except pymysql.OperationalError as error:
                        # MariaDB's Connection_errors_max_connections does not count them all.
                        play.bit(error.args[0] == TOO_MANY_CONNECTIONS)
                    play.wait(play.chance.uniform(1, 2))
        finally:
            cursor.execute("SET GLOBAL max_connections = 300")


def cut_connections(cursor: pymysql.cursors.Cursor) -> int:
    """Kill every connection but root's; return how many."""
    cursor.execute("SELECT id FROM information_schema.processlist WHERE user = 'chat_workers'")
    killed = 0
    for (connection,) in cursor.fetchall():
        with suppress(pymysql.Error):
            cursor.execute(f"KILL CONNECTION {int(connection)}")
            killed += 1
    return killed


def cut(play: Play) -> None:
    """Kill all connections, again and again."""
    with play.scene.stack.mariadb.root() as cursor:
        for _ in range(play.chance.randint(2, 6)):
            play.bit(cut_connections(cursor))
            play.wait(play.chance.uniform(0.1, 1))


def read_only(play: Play) -> None:
    """Refuse all writes, as a server does that was demoted to a replica."""
    with play.scene.stack.mariadb.root() as cursor:
        cursor.execute("SET GLOBAL read_only = 1")
        try:
            play.wait(play.chance.uniform(2, 8))
            play.bit(_is_refused(play))
        finally:
            cursor.execute("SET GLOBAL read_only = 0")


def _is_refused(play: Play) -> bool:
    """Return whether a write with the API's rights is refused because the server is read-only."""
    with connect(play.scene.engine.url) as connection, connection.cursor() as cursor:
        try:
            cursor.execute("UPDATE typing_indicators SET user_id = user_id WHERE id = 0")
        except pymysql.OperationalError as error:
            return bool(error.args[0] == READ_ONLY)
    return False


def lock_rows(play: Play) -> None:
    """Hold row locks on the newest notifications, as a long transaction of the API does."""
    connection = connect(play.scene.engine.url)
    with connection, connection.cursor() as cursor:
        # Else the gap behind the last row is locked too, and the inserts wait.
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        connection.begin()
        play.bit(cursor.execute(f"{NEWEST} FOR UPDATE", (play.chance.randint(50, 1000),)))
        play.wait(play.chance.uniform(3, 12))
        connection.rollback()


def deadlock(play: Play) -> None:
    """Let two clients update the newest notifications in random order, row by row in one transaction, over and over."""
    ends_at = time.monotonic() + play.chance.uniform(3, 8)

    def update(chance: random.Random) -> None:
        connection = connect(play.scene.engine.url)
        with connection, connection.cursor() as cursor:
            while time.monotonic() < ends_at and not play.over.is_set():
                cursor.execute(NEWEST, (100,))
                ids = [row[0] for row in cursor.fetchall()]
                try:
                    connection.begin()
                    for number in chance.sample(ids, min(len(ids), 30)):
                        cursor.execute(UNREAD, (number,))
                    connection.commit()
                except pymysql.OperationalError as error:
                    if error.args[0] not in CONTENTION:
                        raise
                    connection.rollback()

    with play.scene.stack.mariadb.root() as cursor:
        before = _status(cursor, "Innodb_deadlocks")
        with ThreadPoolExecutor(2) as clients:
            for client in [clients.submit(update, random.Random(play.chance.random())) for _ in range(2)]:
                client.result()
        play.bit(_status(cursor, "Innodb_deadlocks") - before)


def alter(play: Play) -> None:
    """Rebuild the table of notifications, which blocks writes, and hold its metadata lock for a while longer."""
    with play.scene.stack.mariadb.root() as cursor:
        cursor.execute("USE truck2_db")
        cursor.execute("SET SESSION lock_wait_timeout = 20")
        cursor.execute("ALTER TABLE chat_notifications ENGINE = InnoDB, ALGORITHM = COPY")
    play.bit()


def _status(cursor: pymysql.cursors.Cursor, name: str) -> int:
    cursor.execute("SHOW GLOBAL STATUS LIKE %s", (name,))
    [(_, value)] = cursor.fetchall()
    return int(value)


def lock_table(table: str) -> Callable[[Play], None]:
    """Hold a table's metadata lock, as an ALTER TABLE does at its end."""

    def run(play: Play) -> None:
        with play.scene.stack.mariadb.root() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = 20")
            cursor.execute(f"LOCK TABLES truck2_db.{table} WRITE")
            play.bit()
            play.wait(play.chance.uniform(2, 15))
            cursor.execute("UNLOCK TABLES")

    return run
