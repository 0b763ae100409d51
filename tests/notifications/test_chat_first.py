"""Messages and mentions pass a backlog of system notifications, and neither starves the other."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from devstack.chat import conversation_pairs, enqueue
from devstack.emulators.client import Emulator
from tasks.notifications import queue, run
from tasks.notifications.queue import Queue
from tests.notifications.conftest import Accepted, Chat
from workers.cli import cli

OURS, OTHERS = "a" * 32, "b" * 32
INDEX = "idx_status_type"


@pytest.fixture(params=["among the newest", "by an index"])
def search(chat: Engine, request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to find the chat's rows."""
    with chat.connect() as connection:
        if request.param == "by an index":
            connection.execute(text(f"CREATE INDEX {INDEX} ON chat_notifications (delivery_status, notification_type)"))
        queue._chat.cache_clear()
        yield request.param
        if request.param == "by an index":
            connection.execute(text(f"DROP INDEX {INDEX} ON chat_notifications"))
    queue._chat.cache_clear()


def system(api: Chat, rows: int) -> None:
    notification = api.notify(notification_type="SYSTEM")
    with api.engine.begin() as connection:
        message = connection.execute(text("SELECT MAX(id) FROM messages")).scalar_one()
        enqueue(connection, conversation_pairs(connection), rows - 1, first=max(notification, message) + 1, most_devices=1)
    api.execute("UPDATE chat_notifications SET notification_type = 'SYSTEM'")


def claimed(queue: Queue, rows: int = 100) -> list[int]:
    return [notification.id for notification in queue.claim_chat(rows)]


def test_the_chats_rows_are_claimed_from_behind_a_backlog_each_by_one(api: Chat, search: str) -> None:
    system(api, 300)
    mention, message, locked = (api.notify(notification_type=kind) for kind in ("MENTION", "MESSAGE", "MESSAGE"))
    with api.engine.connect() as holder:
        holder.execute(text("SELECT 1 FROM chat_notifications WHERE id = :id FOR UPDATE"), {"id": locked})
        assert claimed(Queue(api.engine, OURS), 1) == [mention]
        assert claimed(Queue(api.engine, OTHERS)) == [message]
    assert claimed(Queue(api.engine, OURS)) == [locked]
    assert claimed(Queue(api.engine, OTHERS)) == []


def test_beyond_the_newest_only_an_index_finds_them(api: Chat, search: str) -> None:
    row = api.notify()
    system(api, queue.NEWEST)
    api.execute("UPDATE chat_notifications SET notification_type = 'MENTION' WHERE id = :id", id=row)
    assert claimed(Queue(api.engine, OURS)) == ([row] if search == "by an index" else [])


def test_a_message_behind_a_backlog_goes_out_with_the_first_rows_and_the_backlog_goes_on(
    api: Chat, emulator: Emulator, accepted: Accepted, search: str
) -> None:
    system(api, 6000)
    message = str(api.notify())
    run.drain()
    order = [row for row, _ in accepted()]
    # Behind the first claim, and what of the next ones was under way.
    assert order.index(message) < 2500
    assert len(order) == 6001


def test_a_backlog_of_messages_goes_out_in_the_order_in_which_they_were_written(
    api: Chat, emulator: Emulator, accepted: Accepted
) -> None:
    system(api, 4000)
    api.execute("UPDATE chat_notifications SET notification_type = 'MESSAGE'")
    last = str(api.notify())
    run.drain()
    assert [row for row, _ in accepted()].index(last) > 3000


def test_db_check_recommends_the_index_and_does_not_ask_for_it(api: Chat) -> None:
    done = CliRunner().invoke(cli, ["db", "check"])
    assert (done.exit_code, f"CREATE INDEX {INDEX}" in done.stderr, INDEX in done.stdout) == (0, True, False)
