"""What writes an event: in the transaction of its cause, once, and for a breaker that flaps no more than once a minute."""

import pytest
from sqlalchemy import Engine, text

from db.transactions import transact
from devstack.emulators.client import Emulator, Fault
from tasks.attachments.settlement import Attachment, settle
from tasks.attachments.verdicts import Finding, Kind
from tasks.notifications import breaker, run
from tasks.notifications.breaker import RAMP_SECONDS, Breaker, Tally, advance, news
from tests.events.conftest import rows
from tests.notifications.conftest import Chat, api, own_process

__all__ = ["api", "own_process"]  # the latter is used by all


def test_a_breaker_that_flaps_all_day_has_opened_once() -> None:
    flapping, now, events = Breaker(), 1_000_000.0, []
    for _ in range(24 * 60):
        advance(flapping, Tally(credentials="fcm 403"), now, 100)
        events.append(news(flapping, now))
        advance(flapping, Tally(answered=1, probed=True), now + 20, 100)
        events.append(news(flapping, now + 20))
        now += 60
    assert [event for event in events if event] == ["breaker.opened"]
    assert news(flapping, now + RAMP_SECONDS) == "breaker.closed"
    assert news(flapping, now + 2 * RAMP_SECONDS) is None


def test_that_a_breaker_opened_is_written_with_its_state(chat: Engine) -> None:
    for _ in range(3):
        breaker.ask(chat, {"fcm.driver": Tally(credentials="fcm 403")}, 100)
    (event,) = rows(chat)
    assert event["type"] == "breaker.opened"
    assert '"fcm 403"' in event["data"]
    assert '"driver"' in event["data"]


def test_a_breaker_that_flaps_writes_no_more_than_one_event(chat: Engine) -> None:
    def ask(tally: Tally) -> breaker.BreakerState:
        return breaker.ask(chat, {"fcm": tally}, 100)["fcm"].state

    for _ in range(20):
        ask(Tally(credentials="fcm 403"))
        with chat.begin() as connection:
            connection.execute(text("UPDATE worker_providers SET probe_at = NOW(3)"))
        assert ask(Tally()) is breaker.BreakerState.HALF_OPEN
        assert ask(Tally(answered=1, probed=True)) is breaker.BreakerState.CLOSED
    assert [row["type"] for row in rows(chat)] == ["breaker.opened"]


def test_a_dead_device_of_many_rows_is_one_event_without_its_token(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unregistered"))
    for _ in range(5):
        api.notify("gone-phone")
    run.drain()
    api.notify("gone-phone")
    run.drain()
    (event,) = rows(api.engine)
    assert event["type"] == "device.dead"
    assert "gone-phone" not in event["data"]


def test_what_is_rolled_back_has_not_happened(chat: Engine) -> None:
    def fails(connection: object) -> None:
        breaker._ask(connection, {"fcm": Tally(credentials="fcm 403")}, 100)  # type: ignore[arg-type]
        raise LookupError

    with pytest.raises(LookupError):
        transact(chat, fails)
    assert rows(chat) == []


BLOCKED, FREED = "attachment.blocked", "attachment.freed"


@pytest.mark.parametrize(
    ("before", "kind", "event"),
    [
        ("waiting", Kind.CLEAN, FREED),
        ("waiting", Kind.INFECTED, BLOCKED),
        ("waiting", Kind.TOO_LARGE, BLOCKED),
        ("clean", Kind.INFECTED, BLOCKED),
        ("clean", Kind.CLEAN, None),
        ("infected", Kind.INFECTED, None),
        ("infected", Kind.RELEASED, FREED),
        ("unverified", Kind.CLEAN, FREED),
        ("waiting", Kind.STORAGE, None),
    ],
)
def test_a_verdict_tells_when_a_file_may_be_served_and_when_no_more(before: str, kind: Kind, event: str | None) -> None:
    attachment = Attachment(1, "/a", verdict=before)
    assert settle(attachment, Finding(kind), quarantine=False).tells == event


def test_a_file_that_was_served_before_the_workers_is_not_freed() -> None:
    assert settle(Attachment(1, "/a", historic=True), Finding(Kind.CLEAN), quarantine=False).tells is None
