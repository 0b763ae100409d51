"""One row's delivery: which devices are tried, and what one of them can do to the others."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tasks.notifications.breaker import BreakerState
from tasks.notifications.delivery import Delivery, Job, begin
from tasks.notifications.devices import Devices
from tasks.notifications.journal import Attempt
from tasks.notifications.ledger import Entry, Ledger, State
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers import Provider
from tasks.notifications.senders import Senders
from tasks.notifications.settlement import MOST_CLAIMS

from .fakes import MemoryProvider, a_gate, a_job
from .made import NOW, a_device, a_notification, key_of

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


def deliver(
    job: Job,
    providers: dict[str, Provider],
    in_time: Callable[[], bool] = lambda: True,
    *,
    in_flight: int = 100,
    **states: BreakerState,
) -> Attempt | None:
    """What became of a row, None if it was not begun."""
    begun = begin(job, NOW)
    if isinstance(begun, Attempt):
        return begun
    done: list[Delivery] = []
    gate = a_gate(**states)

    async def send() -> None:
        async with asyncio.TaskGroup() as tasks:
            Senders(providers, gate, tasks, in_flight, done.append).put(begun, in_time)

    asyncio.run(send())
    assert done == [begun]
    return begun.conclude(NOW)


def attempt(
    job: Job,
    provider: MemoryProvider,
    in_time: Callable[[], bool] = lambda: True,
    *,
    fcm: BreakerState = CLOSED,
    in_flight: int = 100,
) -> Attempt:
    result = deliver(job, {"fcm": provider}, in_time, in_flight=in_flight, fcm=fcm)
    assert result
    return result


def a_ledger(**states: State) -> bytes:
    ledger = Ledger()
    for token, state in states.items():
        ledger.entries[key_of(token)] = Entry(state, 1, NOW - 1, "before", Kind.UNAVAILABLE)
    return orjson.dumps(ledger.stored())


def test_each_device_is_tried_once() -> None:
    provider = MemoryProvider()
    assert attempt(a_job(7, "phone", "tablet"), provider).settlement.status == "SENT"
    assert provider.sent == ["phone", "tablet"]


def test_a_retry_goes_to_the_rest_only() -> None:
    provider = MemoryProvider()
    known = a_ledger(phone=State.SENT, tablet=State.DEAD, watch=State.WAITING)
    attempt(a_job(7, "phone", "tablet", "watch", "new", ledger=known), provider)
    assert provider.sent == ["watch", "new"]


def test_a_device_that_an_earlier_row_found_dead_is_not_tried() -> None:
    provider = MemoryProvider()
    settlement = attempt(a_job(7, "phone", "old", dead=frozenset({key_of("old")})), provider).settlement
    assert provider.sent == ["phone"]
    assert (settlement.error_message or "").startswith("1 of 2 dead (found dead before)")


NOT_SENT: dict[str, tuple[dict[str, Any], str, str]] = {
    "the recipient does not want it": ({"suppressed": "muted"}, "BOUNCED", "suppressed: muted"),
    "it is 24 h old": ({"created_at": NOW - 86_400}, "FAILED", "gave up: older than 24 h"),
    "it has killed its worker too often": ({"claims": MOST_CLAIMS + 1}, "FAILED", "gave up: its worker died 5 times in a row"),
    "the recipient has switched the channel off": (
        {"mobile": False},
        "BOUNCED",
        "suppressed: notifications to these devices are off",
    ),
}


@pytest.mark.parametrize("why", NOT_SENT)
def test_nothing_is_sent_because(why: str) -> None:
    changes, status, message = NOT_SENT[why]
    provider = MemoryProvider()
    settlement = attempt(a_job(**changes), provider).settlement
    assert (settlement.status, settlement.error_message, provider.sent) == (status, message, [])


def test_preferences_win_over_age() -> None:
    settlement = attempt(a_job(suppressed="muted", created_at=NOW - 90_000), MemoryProvider()).settlement
    assert settlement.error_message == "suppressed: muted"


def test_a_device_of_no_configured_provider_is_refused_and_costs_the_others_nothing() -> None:
    provider = MemoryProvider()
    devices = Devices((a_device("phone"), a_device("bird", "pigeon")))
    settlement = attempt(Job(a_notification(), devices), provider).settlement
    assert (settlement.status, provider.sent) == ("SENT", ["phone"])
    assert "there is no provider 'pigeon'" in (settlement.error_message or "")


def test_a_device_that_makes_its_provider_fail_costs_the_others_nothing() -> None:
    """Else its row is tried again from the start, and the good devices get the push each time."""
    provider = MemoryProvider({"odd": ValueError("Invalid IPv6 URL")})
    settlement = attempt(a_job(7, "phone", "odd"), provider).settlement
    assert settlement.is_sent
    assert settlement.ledger is not None
    assert settlement.ledger[key_of("phone")][0] == State.SENT


def test_a_row_that_a_provider_cannot_put_into_words_costs_the_other_providers_nothing() -> None:
    good, bad = MemoryProvider(), MemoryProvider({"prepare": TypeError("str is not valid UTF-8")})
    devices = Devices((a_device("phone"), a_device("tablet", "apns")))
    result = deliver(Job(a_notification(), devices), {"fcm": good, "apns": bad}, fcm=CLOSED, apns=CLOSED)
    assert result
    assert result.settlement.is_sent
    assert good.sent == ["phone"]


def test_while_the_breaker_is_open_nothing_is_sent_and_no_attempt_burnt() -> None:
    provider = MemoryProvider()
    result = attempt(a_job(7, "phone", "tablet"), provider, fcm=OPEN)
    assert provider.sent == []
    assert [(entry.state, entry.attempts) for entry in result.ledger.entries.values()] == [(State.WAITING, 0)] * 2
    assert (result.settlement.status, result.settlement.waiting_on) == ("FAILED", "fcm")


def test_a_probe_is_one_of_the_row_s_devices() -> None:
    provider = MemoryProvider()
    attempt(a_job(7, "phone", "tablet", "watch"), provider, fcm=HALF_OPEN)
    assert provider.sent == ["phone"]


def test_a_device_that_was_held_is_not_counted_as_tried() -> None:
    assert attempt(a_job(), MemoryProvider(), fcm=OPEN).outcomes == ()


def test_a_row_that_could_not_be_begun_in_time_goes_back_untouched() -> None:
    provider = MemoryProvider()
    assert deliver(a_job(7, "phone", "tablet"), {"fcm": provider}, lambda: False, fcm=CLOSED) is None
    assert provider.sent == []


def test_a_row_that_was_begun_in_time_keeps_its_results_and_holds_the_rest() -> None:
    answers = iter([True, False])
    result = attempt(a_job(7, "phone", "tablet"), MemoryProvider(), lambda: next(answers))
    assert [entry.state for entry in result.ledger.entries.values()] == [State.SENT, State.WAITING]


def test_the_requests_under_way_are_bounded_however_many_devices_a_row_has() -> None:
    provider = MemoryProvider(seconds=0.001)
    attempt(a_job(7, *(f"token-{n}" for n in range(600))), provider, in_flight=50)
    assert (len(provider.sent), provider.most_under_way) == (600, 50)


@pytest.mark.parametrize(("kind", "status"), [(Kind.UNAVAILABLE, "FAILED"), (Kind.DEAD, "BOUNCED"), (Kind.REFUSED, "BOUNCED")])
def test_what_came_back_makes_the_row(kind: Kind, status: str) -> None:
    provider = MemoryProvider({"phone": Outcome(kind, "why")})
    result = attempt(a_job(7, "phone"), provider)
    assert result.settlement.status == status
    assert result.outcomes == ((a_device("phone"), Outcome(kind, "why")),)
