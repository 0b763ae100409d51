"""A chat to write notifications into, and a way to let hours pass in the database."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine, RowMapping, text

from devstack.emulators.client import Emulator
from tasks.notifications import run

Values = dict[str, Any]


@dataclass(frozen=True)
class Chat:
    """The database as the API sees it: one conversation of users 1 (sender) and 2 (recipient)."""

    engine: Engine

    def __post_init__(self) -> None:
        self.insert("users", id=1, first_name="Ana", last_name="Novák")
        self.insert("users", id=2, first_name="Emre", last_name="Silva")
        self.insert("conversations", id=1, conversation_id="c-1", initiator_id=1, receiver_id=2)

    def insert(self, table: str, **values: Any) -> int:
        columns, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        with self.engine.begin() as connection:
            return connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({marks})"), values).lastrowid or 0

    def execute(self, statement: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def rows(self, statement: str, **values: Any) -> list[RowMapping]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(statement), values).mappings())

    def notify(self, *tokens: Any, **values: Any) -> int:
        """Write a message and its PENDING notification for user 2; return the notification's id."""
        number = next(_numbers)
        message = self.insert(
            "messages", message_id=f"m-{number}", conversation_id=1, sender_id=1, message_text="When can you deliver?"
        )
        row: Values = {
            "conversation_id": 1,
            "message_id": message,
            "recipient_id": 2,
            "sender_id": 1,
            "title": "New message from Ana",
            "body": "When can you deliver?",
            "device_tokens": json.dumps(tokens or (f"token-{number}",)),
        }
        return self.insert("chat_notifications", **(row | values))

    def notification(self, notification_id: int) -> RowMapping:
        return self.rows("SELECT * FROM chat_notifications WHERE id = :id", id=notification_id)[0]

    def status(self, notification_id: int) -> tuple[str, int, str | None]:
        row = self.notification(notification_id)
        return row["delivery_status"], row["is_sent"], row["error_message"]

    def let_pass(self, seconds: float) -> None:
        """Move every due time and creation into the past, as if `seconds` had gone by."""
        for row in self.rows("SELECT notification_id, devices FROM worker_deliveries"):
            ledger = json.loads(row["devices"]) if row["devices"] else {}
            for entry in ledger.values():
                entry[2] -= seconds
            self.execute(
                "UPDATE worker_deliveries SET devices = :devices WHERE notification_id = :id",
                devices=json.dumps(ledger) if ledger else None,
                id=row["notification_id"],
            )
        past = f"- INTERVAL {round(seconds * 1000)} * 1000 MICROSECOND"
        self.execute(f"UPDATE worker_deliveries SET due_at = due_at {past}")
        self.execute(f"UPDATE worker_providers SET probe_at = probe_at {past}, paused_until = paused_until {past}")
        self.execute(f"UPDATE chat_notifications SET created_at = created_at {past}")
        self.execute("UPDATE worker_deliveries SET identity = ''")  # which created_at is a part of


_numbers = count(1)


def forget_process() -> None:
    """End the drains' event loop and connections; the next drain makes them anew from the environment."""
    if run._process.cache_info().currsize:
        loop, providers = run._process()
        for provider in providers.values():
            loop.run_until_complete(provider.close())
        loop.close()
        run._process.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def own_process() -> None:
    """No token of an earlier file's emulator, which this one's may not know."""
    forget_process()


@pytest.fixture
def api(chat: Engine, emulator: Emulator) -> Chat:
    """The API's side of an otherwise empty database, before providers that no other test has told to fail."""
    return Chat(chat)


Accepted = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def accepted(emulator: Any) -> Accepted:
    """What the providers accepted so far: (notification id, token), in order."""
    return lambda: [(message.notification_id, message.token) for message in emulator.accepted()]
