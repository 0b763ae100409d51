"""The API's notifications: rows for people with all kinds of devices, nudges for most, some marked as read."""

import hashlib
import json
import random
import threading
import time
from dataclasses import dataclass, field
from typing import ClassVar

from pymysql.cursors import Cursor

from devstack.chat import DEAD, LIVE, TEXTS
from devstack.emulators.subscriptions import subscription
from tests.chaos.client import BY_GATEWAY, Client
from tests.chaos.gateway import Gateway

INSERT = (
    "INSERT INTO chat_notifications"
    " (id, conversation_id, message_id, recipient_id, sender_id, notification_type, title, body, device_tokens) VALUES "
)
MARK_AS_READ = "UPDATE chat_notifications SET is_read = 1, read_at = NOW() WHERE id IN %s"
MESSAGES = "INSERT INTO messages (id, message_id, conversation_id, sender_id, message_text) VALUES (%s, %s, %s, %s, %s)"

NUDGED = 0.8
READ = 0.02
# Rows that are read are among the last so many.
RECENT = 1000


@dataclass(slots=True)
class Written:
    """What the API knows that it has written: the rows whose commit was answered."""

    batches: list[tuple[int, int, float]] = field(default_factory=list)
    """(first id, rows, Unix time of the commit)"""
    read: set[int] = field(default_factory=set)
    """Ids that were, or may have been, marked as read."""
    newest: int = 0
    nudge: threading.Event = field(default_factory=threading.Event)
    """Set by a commit that is followed by a nudge."""

    @property
    def rows(self) -> int:
        return sum(count for _, count, _ in self.batches)


class Pushes(Client):
    """Inserts so many rows a second, in a statement each quarter of one."""

    seconds: ClassVar[float] = 0.25

    def __init__(
        self, database_url: str, broker_url: str, push_url: str, pairs: list[tuple[int, int]], *, rate: float, seed: int
    ) -> None:
        """`pairs` are the people of each conversation, `rate` is in rows a second."""
        super().__init__("pushes", database_url, broker_url)
        self.written = Written()
        self.next_id = 1
        self._pairs = pairs
        self._rows = rate * self.seconds
        self._owed = 0.0
        self._chance = random.Random(f"pushes {seed}")
        self._devices = {user: json.dumps(devices_of(user, push_url)) for user in {user for pair in pairs for user in pair}}
        self._messages = False

    def step(self, cursor: Cursor) -> None:
        if not self._messages:
            cursor.executemany(MESSAGES, message_rows(self._pairs))
            self._messages = True
        self._owed += self._rows
        # Paid before the statement: what fails is left out.
        count, self._owed = divmod(self._owed, 1)
        if count:
            self.insert(cursor, int(count))

    def insert(self, cursor: Cursor, count: int) -> None:
        """Insert rows under ids that are used once, whether the statement comes through or not."""
        first, self.next_id = self.next_id, self.next_id + count
        rows = [self._row(number) for number in range(first, first + count)]
        marks = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s, %s)"] * count)
        cursor.execute(INSERT + marks, [value for row in rows for value in row])
        self.written.batches.append((first, count, time.time()))
        self.written.newest = self.next_id - 1
        if self._chance.random() < NUDGED:
            self.written.nudge.set()

    def _row(self, number: int) -> tuple[object, ...]:
        conversation = self._chance.randrange(len(self._pairs))
        sender, recipient = self._pairs[conversation] if self._chance.random() < 0.5 else self._pairs[conversation][::-1]
        kind = "MENTION" if self._chance.random() < 0.1 else "MESSAGE"
        # No two say the same: the audit finds one that was sent with the words of another.
        body = f"{self._chance.choice(TEXTS)} ({number})"
        message = conversation + 1
        return number, message, message, recipient, sender, kind, "New message", body, self._devices[recipient]


class Nudges(Client):
    """Asks for a drain after commits: beside the inserts, for an API's request does not wait for Redis."""

    seconds: ClassVar[float] = 0.05

    def __init__(self, database_url: str, broker_url: str, written: Written, gateway: Gateway, *, seed: int) -> None:
        super().__init__("nudges", database_url, broker_url)
        self.gateway = gateway
        self._written = written
        self._chance = random.Random(f"nudges {seed}")

    def step(self, _cursor: Cursor) -> None:
        if self._written.nudge.wait(0.5):
            self._written.nudge.clear()
            if self._chance.random() < BY_GATEWAY:
                self.gateway.notifications()
            else:
                self.send("tasks.notifications.drain")


class Readers(Client):
    """Marks some of the newest notifications as read: some wait to be sent, some are being sent."""

    seconds: ClassVar[float] = 0.25

    def __init__(self, database_url: str, broker_url: str, written: Written, *, rate: float, seed: int) -> None:
        """`rate` is that of the inserts."""
        super().__init__("readers", database_url, broker_url)
        self._written = written
        self._rows = rate * self.seconds * READ
        self._owed = 0.0
        self._chance = random.Random(f"readers {seed}")

    def step(self, cursor: Cursor) -> None:
        newest = self._written.newest
        self._owed += self._rows
        if not newest or self._owed < 1:
            return
        read = {self._chance.randint(max(1, newest - RECENT), newest) for _ in range(int(self._owed))}
        self._owed %= 1
        # Noted before the statement: one that fails may have been done.
        self._written.read |= read
        cursor.execute(MARK_AS_READ, (tuple(read),))


def message_rows(pairs: list[tuple[int, int]]) -> list[tuple[int, str, int, int, str]]:
    """Return one message for each conversation, of the same id."""
    return [(number, f"chaos-{number}", number, pair[0], "When can you deliver?") for number, pair in enumerate(pairs, 1)]


def devices_of(user: int, push_url: str) -> list[object]:
    """Return a person's devices: mostly phones, some with an iPhone of their own or a browser, some of them dead."""
    phones = [f"{LIVE}{user}-{number}" for number in range(1 + (user % 3 == 0))]
    iphone = {"provider": "apns", "token": hashlib.sha256(f"iphone {user}".encode()).hexdigest()}
    kind = user % 100
    if kind < 4:
        return [*phones, f"{DEAD}{user}"]
    if kind < 6:
        return [f"{DEAD}{user}"]
    if kind < 14:
        return [*phones, iphone]
    if kind < 20:
        browser = subscription(push_url, user)
        keys = {"p256dh": browser.p256dh, "auth": browser.auth}
        webpush = {"provider": "webpush", "endpoint": browser.endpoint, "keys": keys}
        return [*phones, webpush] if kind < 18 else [iphone, webpush]
    return [*phones]
