"""Every writer of chat_notifications: a row that it cannot write, or with values of no use, keeps no other from being done."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from db.engine import get_engine
from devstack.emulators.client import Emulator
from tasks.notifications import cancel, replay, run
from tests.notifications.conftest import Chat, api, own_process
from tests.notifications.test_apps import Apps, apps, of_app
from tests.one_row.odd import LOCKED, SIGNALS, TO_UPDATE, Rows, locked

__all__ = ["api", "apps", "own_process"]

Make = Callable[[str, int], None]

ENTRY = "EXISTS (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = chat_notifications.id)"
SENT = "delivery_status = 'SENT'"


def waiting(api: Chat) -> None:
    """Have a worker of before have tried all rows in vain."""
    api.execute("UPDATE chat_notifications SET delivery_status = 'FAILED', error_message = 'fcm 503; next try soon'")
    api.execute("INSERT INTO worker_deliveries (notification_id, due_at) SELECT id, NOW(3) FROM chat_notifications")


def settled_by_hand(api: Chat) -> None:
    waiting(api)
    api.execute("UPDATE chat_notifications SET delivery_status = 'BOUNCED'")


def set_status(status: str) -> Callable[[Chat], None]:
    return lambda api: api.execute(f"UPDATE chat_notifications SET delivery_status = {status}, device_tokens = '[\"phone\"]'")


def without_devices(api: Chat) -> None:
    api.execute("UPDATE chat_notifications SET device_tokens = NULL")


def cancel_all(api: Chat) -> None:
    cancel.cancel(api.engine, cancel.Chosen({}), "test")


def replay_all(api: Chat) -> None:
    replay.replay(api.engine, [row["id"] for row in api.rows("SELECT id FROM chat_notifications")], "BOUNCED")


def retry(_: Chat) -> None:
    run.retry_failed()


def drain(api: Chat) -> None:
    run.drain()
    retry(api)


def adopt(_: Chat) -> None:
    run.adopt()


@dataclass(frozen=True)
class Writer:
    """`first` makes of PENDING rows what it finds; `done`, SQL, holds of those that it has written; it may push each once."""

    run: Callable[[Chat], None]
    done: str
    first: Callable[[Chat], None] = lambda _: None
    pushes: bool = False
    ways: tuple[str, ...] = tuple(TO_UPDATE)
    waits: bool = True
    """The odd one waits until it can be written."""


WRITERS = {
    "settle, sent": Writer(drain, SENT, pushes=True, ways=(*TO_UPDATE, *SIGNALS)),
    "settle, other": Writer(drain, "delivery_status = 'BOUNCED'", without_devices),
    "retry": Writer(retry, SENT, waiting, pushes=True),
    "tidy": Writer(retry, f"NOT {ENTRY}", settled_by_hand, waits=False, ways=(*LOCKED, "a trigger")),
    "enter": Writer(adopt, "delivery_status = 'PENDING'", set_status("NULL"), ways=(*TO_UPDATE, *SIGNALS)),
    "adopt": Writer(adopt, ENTRY, set_status("'FAILED'"), waits=False, ways=(*LOCKED, "a trigger")),
    "cancel": Writer(cancel_all, "delivery_status = 'BOUNCED'"),
    "cancel, retries": Writer(cancel_all, "delivery_status = 'BOUNCED'", waiting),
    "replay": Writer(replay_all, "delivery_status = 'PENDING'", set_status("'BOUNCED'")),
}


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(("name", "way"), [(name, way) for name, writer in WRITERS.items() for way in writer.ways])
def test_the_others_are_done_and_the_odd_one_when_it_can_be(api: Chat, emulator: Emulator, name: str, way: str) -> None:
    writer = WRITERS[name]
    ids = [api.notify(f"phone-{number}") for number in range(5)]
    writer.first(api)
    rows = Rows(api.engine, "chat_notifications", writer.done, mark="message_id")
    with (TO_UPDATE | SIGNALS)[way](rows, ids[2]):
        for _ in range(2):
            writer.run(api)
            assert rows.left() == ([ids[2]] if writer.waits else [])
            api.execute("UPDATE worker_deliveries SET due_at = NOW(3) - INTERVAL 1 SECOND WHERE lease IS NULL")
    writer.run(api)
    assert rows.left() == []
    assert emulator.stats().requests() == (5 if writer.pushes else 0)


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("name", ["retry", "cancel, retries"])
def test_the_others_are_done_though_someone_holds_an_entry(api: Chat, name: str) -> None:
    """As a worker whose host has vanished does, until the server misses it."""
    ids = [api.notify(f"phone-{number}") for number in range(5)]
    WRITERS[name].first(api)
    rows = Rows(api.engine, "chat_notifications", WRITERS[name].done)
    with locked(Rows(api.engine, "worker_deliveries", "FALSE", "notification_id"), ids[2]):
        WRITERS[name].run(api)
        assert rows.left() == [ids[2]]
    WRITERS[name].run(api)
    assert rows.left() == []


HALF = "CONVERT(X'5B2261EDA080225D' USING utf8mb4)"
LOWEST, HIGHEST = -(2**63), 2**63 - 1
# What a schema may allow, or a server take, in one row.
VALUES = {
    **{f"NULL in {column}": f"{column} = NULL" for column in ("title", "body", "recipient_id", "sender_id", "message_id")},
    **{f"NULL in {column} ": f"{column} = NULL" for column in ("conversation_id", "is_sent", "is_read", "created_at")},
    "no type": "notification_type = ''",
    "a date of zeros": "created_at = 0, sent_at = 0, read_at = 0",
    "sent at no time": "is_sent = 1, sent_at = 0",
    "a long text": "body = REPEAT('👍', 16000), error_message = REPEAT('👍', 16000)",
    "deep JSON": "device_tokens = CONCAT(REPEAT('[', 30), '1', REPEAT(']', 30))",
    "numbers that are none": "device_tokens = '[1e308, -0, 123456789012345678901234567890]'",
    "the lowest id": f"id = {LOWEST}",
    "the highest id": f"id = {HIGHEST}",
    "id 0": "id = 0",
}
ON_MARIADB = {
    f"half a pair in {column}": f"{column} = {HALF}" for column in ("title", "body", "device_tokens", "error_message")
}
if os.environ.get("DEVSTACK_DATABASE") != "mysql":
    VALUES |= ON_MARIADB
NULLABLE = ("title VARCHAR(100)", "body TEXT", "recipient_id INT", "sender_id INT", "message_id INT", "conversation_id INT")


@pytest.fixture(scope="module")
def lenient(environment: dict[str, str]) -> Iterator[None]:
    """A schema that allows all of that."""
    assert environment
    alter = "ALTER TABLE chat_notifications {}"
    with get_engine().begin() as connection:
        before = connection.execute(text("SHOW CREATE TABLE chat_notifications")).one()[1]
        changes = [f"MODIFY {column} NULL" for column in NULLABLE]
        connection.execute(text(alter.format(", ".join([*changes, "MODIFY id BIGINT AUTO_INCREMENT"]))))
    yield
    with get_engine().begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        connection.execute(text("DROP TABLE chat_notifications"))
        connection.exec_driver_sql(before)
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))


@pytest.fixture
def odd(lenient: None, api: Chat) -> Iterator[Callable[[str, int], None]]:
    """Give a row odd values."""

    def make(what: str, row: int) -> None:
        with api.engine.connect() as connection:
            connection.execute(text("SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"))
            connection.execute(text(f"UPDATE chat_notifications SET {VALUES[what]} WHERE id = {row}"))
            connection.commit()
            connection.invalidate()

    yield make
    api.execute("TRUNCATE TABLE chat_notifications")  # no id is given behind the highest one


def open_rows(api: Chat) -> list[int | str]:
    """Return the rows that are not settled for good."""
    final = "delivery_status IN ('SENT', 'BOUNCED') OR delivery_status = 'FAILED' AND error_message LIKE 'gave up:%'"
    return Rows(api.engine, "chat_notifications", f"({final}) AND NOT {ENTRY}").left()


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("what", VALUES)
def test_the_others_are_sent_and_the_odd_one_comes_to_an_end(api: Chat, emulator: Emulator, odd: Make, what: str) -> None:
    ids = [api.notify(f"phone-{number}") for number in range(5)]
    odd(what, ids[2])
    run.drain()
    assert [api.status(row)[0] for row in ids if row != ids[2]] == ["SENT"] * 4
    for _ in range(6):
        if open_rows(api):
            api.execute("UPDATE worker_deliveries SET due_at = NOW(3) - INTERVAL 1 SECOND")
            run.retry_failed()
    assert open_rows(api) == []
    assert emulator.stats().requests() in {4, 5}


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("what", VALUES)
def test_the_others_are_withdrawn(api: Chat, apps: Apps, odd: Make, what: str) -> None:
    apps("[driver]\nandroid = 'data'\nwithdraw = ['fcm']\n[driver.fcm]\n<fcm>\n")
    ids = [api.notify(of_app("driver", f"phone-{number}")) for number in range(5)]
    run.drain()
    api.execute("UPDATE chat_notifications SET is_read = TRUE")
    odd(what, ids[2])
    assert run.withdraw(2) in {4, 5}
    assert run.withdraw(2) is None
