"""A push that is out does not go out again because its row could not be written."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, text

from db.engine import get_engine
from devstack.emulators.client import Emulator, Fault
from devstack.stack import Stack
from tasks.notifications import journal, results, run
from tasks.notifications.devices import read_devices
from tasks.notifications.journal import Attempt
from tasks.notifications.ledger import Ledger
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.queue import Queue
from tasks.notifications.settlement import settle
from tests.notifications.conftest import Accepted, Chat
from tests.processes import wait_until

SENT = ("SENT", 1, None)


@pytest.fixture
def impatient(api: Chat, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Waits of a second where production has ten."""

    def shorten(connection: Any, *_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1")

    monkeypatch.setattr(results, "SETTLE_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(journal, "APART_SECONDS", 0)
    engine = get_engine()
    event.listen(engine, "checkout", shorten)
    yield
    event.remove(engine, "checkout", shorten)
    engine.dispose()


def in_flight(emulator: Emulator, rows: int, meanwhile: Callable[[], None]) -> None:
    """Drain; do something while `rows` pushes are out; return when the run has ended."""
    emulator.inject(Fault(kind="slow", latency=3))
    draining = threading.Thread(target=run.drain)
    draining.start()
    wait_until(lambda: emulator.stats().in_flight == rows, "the pushes were in flight")
    meanwhile()
    draining.join()
    emulator.clear()


def settle_what_is_parked(api: Chat) -> None:
    api.let_pass(results.REFUSED_SECONDS + 1)
    run.retry_failed()


def test_a_row_that_is_locked_for_a_moment_is_settled_by_the_same_run(api: Chat, emulator: Emulator) -> None:
    rows = [api.notify(f"phone-{number}") for number in range(3)]
    with api.engine.connect() as connection:

        def let_go(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith(results.OURS_AND_FREE.text.partition(":")[0]):  # the run has found the row locked
                connection.rollback()

        event.listen(get_engine(), "after_cursor_execute", let_go)
        in_flight(emulator, 3, lambda: lock(connection, rows[1]))
        event.remove(get_engine(), "after_cursor_execute", let_go)
    assert [api.status(row) for row in rows] == [SENT] * 3
    assert api.rows("SELECT * FROM worker_deliveries") == []


def test_a_row_that_is_deleted_while_its_push_is_out_is_forgotten(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    gone, other = api.notify("phone"), api.notify("tablet")
    in_flight(emulator, 2, lambda: api.execute("DELETE FROM chat_notifications WHERE id = :id", id=gone))
    assert api.status(other) == SENT
    settle_what_is_parked(api)
    assert api.rows("SELECT * FROM worker_deliveries") == []
    assert len(accepted()) == 2


@pytest.mark.usefixtures("impatient")
def test_results_wait_for_an_altered_table_beside_it(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    rows = [api.notify(f"phone-{number}") for number in range(3)]
    with api.engine.connect() as connection:
        in_flight(emulator, 3, lambda: lock_table(connection))
        assert {api.status(row)[0] for row in rows} == {"PENDING"}
        connection.execute(text("UNLOCK TABLES"))
    settle_what_is_parked(api)
    assert [api.status(row) for row in rows] == [SENT] * 3
    assert len(accepted()) == 3
    assert api.rows("SELECT * FROM worker_deliveries") == []


def test_a_parked_row_is_settled_as_sent_though_it_was_read_meanwhile(api: Chat, emulator: Emulator) -> None:
    row = api.notify("phone")
    with api.engine.connect() as connection:
        in_flight(emulator, 1, lambda: lock(connection, row))
        connection.rollback()
    api.execute("UPDATE chat_notifications SET is_read = 1, read_at = NOW()")
    settle_what_is_parked(api)
    assert api.status(row) == SENT


def test_a_dead_device_is_known_though_its_row_could_not_be_written(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unregistered", latency=3))
    row = api.notify("phone")
    draining = threading.Thread(target=run.drain)
    with api.engine.connect() as connection:
        draining.start()
        wait_until(lambda: emulator.stats().in_flight == 1, "the push was in flight")
        lock(connection, row)
        draining.join()
        connection.rollback()
    assert [dead["token"] for dead in api.rows("SELECT token FROM worker_dead_devices")] == ["phone"]
    settle_what_is_parked(api)
    assert api.status(row)[0] == "BOUNCED"
    assert [count["devices"] for count in api.rows("SELECT devices FROM worker_delivery_counts")] == [1]


@pytest.mark.usefixtures("impatient")
def test_who_holds_the_dead_devices_holds_up_no_result(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    emulator.inject(Fault(kind="unregistered", token="dead"))
    good, bad = api.notify("phone"), api.notify("dead")
    with api.engine.connect() as connection:
        hold(connection, "worker_dead_devices")
        run.drain()
        assert [api.status(row)[0] for row in (good, bad)] == ["SENT", "BOUNCED"]
        connection.rollback()
    api.notify("dead")
    run.drain()
    assert [dead["token"] for dead in api.rows("SELECT token FROM worker_dead_devices")] == ["dead"]
    assert [event["type"] for event in api.rows("SELECT type FROM worker_events")] == ["device.dead"]
    assert len(accepted()) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("table", ["worker_events", "worker_delivery_counts", "worker_delivery_history"])
def test_who_holds_a_table_that_a_result_goes_to_has_no_push_sent_again(
    api: Chat, emulator: Emulator, accepted: Accepted, table: str
) -> None:
    emulator.inject(Fault(kind="unregistered", token="dead"))
    good, bad = api.notify("phone"), api.notify("dead")
    with api.engine.connect() as connection:
        hold(connection, table)
        run.drain()
        settle_what_is_parked(api)
        connection.rollback()
    settle_what_is_parked(api)
    assert [api.status(row)[0] for row in (good, bad)] == ["SENT", "BOUNCED"]
    assert api.rows("SELECT * FROM worker_deliveries") == []
    assert len(accepted()) == 1


def test_what_is_left_to_try_of_a_parked_row_keeps_its_time(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    emulator.inject(Fault(kind="unavailable", token="bad", latency=3))
    emulator.inject(Fault(kind="slow", token="good", latency=3))
    row = api.notify("good", "bad")
    draining = threading.Thread(target=run.drain)
    with api.engine.connect() as connection:
        draining.start()
        wait_until(lambda: emulator.stats().in_flight == 2, "both pushes were in flight")
        lock(connection, row)
        draining.join()
        connection.rollback()
    emulator.clear()
    api.let_pass(2)
    run.retry_failed()
    assert api.status(row)[:2] == ("FAILED", 1)
    assert [token for _, token in accepted()] == ["good"]
    api.let_pass(3600)
    run.retry_failed()
    assert api.status(row) == SENT
    assert sorted(token for _, token in accepted()) == ["bad", "good"]


def test_a_row_without_a_ledger_is_parked_and_settled_too(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    row = api.notify("phone", is_read=1)
    api.execute("""
        CREATE TRIGGER refuse BEFORE UPDATE ON chat_notifications FOR EACH ROW
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not now'
    """)
    try:
        run.drain()
    finally:
        api.execute("DROP TRIGGER refuse")
    assert api.rows("SELECT devices FROM worker_deliveries") == [{"devices": None}]
    settle_what_is_parked(api)
    assert api.status(row)[0] == "BOUNCED"
    assert accepted() == []


def test_results_wait_for_a_server_that_is_read_only(api: Chat, emulator: Emulator, accepted: Accepted, stack: Stack) -> None:
    row = api.notify("phone")
    writable = threading.Timer(2, set_read_only, (stack, 0))

    def demote() -> None:
        set_read_only(stack, 1)
        writable.start()

    in_flight(emulator, 1, demote)
    writable.join()
    assert api.status(row) == SENT
    assert len(accepted()) == 1


def set_read_only(stack: Stack, value: int) -> None:
    with stack.mariadb.root() as cursor:
        cursor.execute(f"SET GLOBAL read_only = {value}")


def lock(connection: Any, row: int) -> None:
    connection.execute(text("SELECT id FROM chat_notifications WHERE id = :id FOR UPDATE"), {"id": row})


def hold(connection: Any, table: str) -> None:
    """Lock the table's rows and gaps, as a DELETE of the API's does that it never commits."""
    connection.execution_options(isolation_level="REPEATABLE READ").execute(text(f"DELETE FROM {table}"))


def lock_table(connection: Any) -> None:
    connection.execute(text("LOCK TABLES chat_notifications READ"))


def test_results_that_the_server_does_not_take_in_one_statement_are_written_in_several(api: Chat, stack: Stack) -> None:
    rows = [api.notify(*(f"phone-{row}-{number}" for number in range(1000))) for row in range(12)]
    queue = Queue(api.engine, "0" * 32)
    attempts = []
    for notification in queue.claim_fresh(len(rows)):
        devices, ledger, failed = read_devices(notification.device_tokens), Ledger(), Outcome(Kind.UNAVAILABLE, "fcm 503")
        for device in devices.usable:
            ledger.record(device.key, failed, notification.created_at, notification.expires_at)
        settled = settle(notification, devices, ledger)
        attempts.append(
            Attempt(settled, notification.recipient_id, tuple((device, failed) for device in devices.usable), ledger)
        )
    with stack.mariadb.root() as cursor:
        cursor.execute("SELECT @@GLOBAL.max_allowed_packet")
        [usual] = cursor.fetchone() or (0,)
        cursor.execute("SET GLOBAL max_allowed_packet = 1048576")
        api.engine.dispose()
        try:
            assert queue.settle(attempts) == {"FAILED": len(rows)}
        finally:
            cursor.execute("SET GLOBAL max_allowed_packet = %s", (usual,))
            api.engine.dispose()
    assert {api.status(row)[0] for row in rows} == {"FAILED"}
