"""The API never waits for a worker: no lock is held on a row while its push is in flight."""

import threading

from sqlalchemy import text

from devstack.emulators.client import Emulator, Fault
from tasks.notifications import run
from tests.notifications.conftest import Chat
from tests.processes import wait_until


def test_a_row_can_be_marked_read_while_its_push_is_in_flight(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="slow", latency=3))
    row = api.notify("phone")
    drain = threading.Thread(target=run.drain)
    drain.start()
    wait_until(lambda: emulator.stats().in_flight == 1, "the push was in flight")
    with api.engine.begin() as connection:
        connection.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
        connection.execute(text("UPDATE chat_notifications SET is_read = 1, read_at = NOW() WHERE id = :id"), {"id": row})
    assert drain.is_alive()  # the API's write returned first
    drain.join()
    settled = api.notification(row)
    assert (settled["delivery_status"], settled["is_read"]) == ("SENT", 1)
