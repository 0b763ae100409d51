"""The rest of a chat's day: people type, old rows are due for deletion, backups are made and taken away."""

import random
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from pymysql.cursors import Cursor

from tasks.backups import folder, manifest
from tasks.backups.errors import BackupError
from tests.chaos.client import Client

TYPING = (
    "INSERT INTO typing_indicators (id, conversation_id, user_id, expires_at) VALUES (%s, %s, 1, NOW() + INTERVAL %s SECOND)"
)
OLD = (
    "INSERT INTO chat_notifications (id, conversation_id, message_id, recipient_id, sender_id, title, body, is_sent, is_read,"
    " delivery_status, created_at) VALUES (%s, 1, 1, 2, 1, 'Old', 'Long ago', 1, %s, 'SENT', NOW() - INTERVAL %s DAY)"
)
# Ids that the pushes never come to.
FIRST_OLD_ID = 1_000_000_000
LIVE_SECONDS, EXPIRING_SECONDS = 86_400, 2
# Of four old rows one is to go: read and past the 90 days. The others are unread, or too young.
AGES = ((1, 100), (1, 80), (0, 100), (0, 80))
TASK_EACH_STEPS = 20


class Chores(Client):
    """Typing rows and old notifications, and the tasks that clear them away."""

    seconds: ClassVar[float] = 0.5

    def __init__(self, database_url: str, broker_url: str, *, rows: int, seed: int) -> None:
        """`rows` of each kind are written at each step."""
        super().__init__("chores", database_url, broker_url)
        self.live: set[int] = set()
        """Typing indicators that have not expired and whose commit was answered."""
        self.kept: set[int] = set()
        """Old notifications that retention must leave alone."""
        self.doomed = 0
        self._rows = rows
        self._steps = 0
        self._next_id = 1
        self._chance = random.Random(f"chores {seed}")

    def step(self, cursor: Cursor) -> None:
        self._steps += 1
        ids = range(self._next_id, self._next_id + 4 * self._rows)
        self._next_id = ids.stop
        live = [number for number in ids if number % 4 == 0]
        cursor.executemany(
            TYPING, [(number, 1 + number % 1000, EXPIRING_SECONDS if number % 4 else LIVE_SECONDS) for number in ids]
        )
        self.live.update(live)
        cursor.executemany(OLD, [(FIRST_OLD_ID + number, *AGES[number % 4]) for number in ids])
        self.kept.update(FIRST_OLD_ID + number for number in ids if number % 4)
        self.doomed += len(live)
        if self._steps % TASK_EACH_STEPS == 1:
            self.tidy()

    def tidy(self) -> None:
        """Ask for what beat asks for at night."""
        for task in ("retention.purge_notifications", "retention.purge_typing_indicators", "typing_indicators.expire"):
            self.send(f"tasks.{task}", expires=30)


class Tapes(Client):
    """Has a dump and an archive made over and over, by taking away those that are there: they count as today's."""

    seconds: ClassVar[float] = 5

    def __init__(self, database_url: str, broker_url: str, backups: Path, kept: Path) -> None:
        super().__init__("tapes", database_url, broker_url)
        self._backups = backups
        self._kept = kept
        self.shipped = False

    def step(self, _cursor: Cursor) -> None:
        dumps, archives = (folder.names(self._backups, kind) for kind in ("daily", "weekly"))
        if not dumps:
            self.send("tasks.backups.daily", expires=20)
        elif not archives:
            self.send("tasks.backups.weekly", expires=20)
        else:
            if self.shipped:
                self.take_away()
            # The first archive stays for a step, to be shipped.
            self.shipped = self.shipped or self.send("tasks.backups.monthly", expires=20)

    def take_away(self) -> None:
        """Move what is committed to where the audit finds it, unless a worker is at work there just now."""
        with suppress(BackupError), folder.locked(self._backups):
            for kind in ("daily", "weekly"):
                for name in folder.names(self._backups, kind):
                    number = len(list(self._kept.iterdir()))
                    shelf = self._kept / f"{number:05d}"
                    shelf.mkdir()
                    # The mark that it counts goes last into the new place, as it came last into the old one.
                    for suffix in ("", manifest.SUFFIX):
                        with suppress(FileNotFoundError):
                            (self._backups / (name + suffix)).rename(shelf / (name + suffix))
