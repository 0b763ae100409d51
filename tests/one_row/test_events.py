"""Events and dead devices: a row that someone holds keeps no other from being delivered or entered."""

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from db.transactions import transact
from tasks import outbox
from tasks.events.task import deliver
from tasks.notifications import journal
from tasks.notifications.devices import read_devices
from tasks.notifications.journal import Attempt
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.settlement import Settlement
from tests.events.conftest import called, receiver, rows
from tests.events.receiver import Receiver
from tests.one_row.odd import Rows, locked

__all__ = ["called", "receiver"]


@pytest.mark.parametrize("numbered", [False, True])
def test_the_other_events_are_delivered_once_and_the_odd_one_when_it_can_be(
    chat: Engine, called: Receiver, numbered: bool
) -> None:
    def happen(*names: str) -> None:
        transact(chat, lambda c: outbox.emit(c, "breaker.opened", *({"provider": name} for name in names)))

    def taken() -> list[str]:
        return sorted(event["data"]["provider"] for event in called.taken)

    happen(*"abcde")
    if numbered:
        called.status = 500
        deliver()
        called.status = 200
        with chat.begin() as connection:
            connection.execute(text("UPDATE worker_events SET due_at = NOW(3)"))
    odd = rows(chat)[2]["id"]
    with locked(Rows(chat, "worker_events", "FALSE"), odd):
        for _ in range(2):
            deliver()
            assert taken() == [*"abde"]
    deliver()
    assert taken() == [*"abcde"]


def test_the_other_devices_are_entered_though_someone_holds_one_that_is_known(chat: Engine, redis: Redis) -> None:
    def found_dead(*tokens: str) -> list[Attempt]:
        devices = [read_devices(f'["{token}"]').usable[0] for token in tokens]
        gone = Outcome(Kind.DEAD, "fcm 404")
        return [Attempt(Settlement(1, "BOUNCED", False, None), 2, ((device, gone),)) for device in devices]

    journal.record_dead(chat, found_dead("a"))
    known = Rows(chat, "worker_dead_devices", "FALSE", "token")
    with locked(known, "a"):
        journal.record_dead(chat, found_dead("a", "b", "c"))
        assert known.left() == [*"abc"]
