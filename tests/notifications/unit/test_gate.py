"""The gate: what one run may send by its copy of the breakers, and how it counts the answers."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tasks.notifications import breaker
from tasks.notifications.breaker import Breaker, BreakerState, Standing, Tally
from tasks.notifications.gate import Gate
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers.fcm import classify

from .made import NOW
from .test_fcm_answers import error, fcm_error, quota

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


class Shared:
    """The shared state as a test dictates it: states by provider, and the tallies that were handed in."""

    def __init__(self, **states: BreakerState) -> None:
        self.states: dict[str, BreakerState] = states
        self.proven: frozenset[str] = frozenset()
        self.tallies: list[Mapping[str, Tally]] = []

    def ask(self, tallies: Mapping[str, Tally]) -> Mapping[str, Standing]:
        self.tallies.append(tallies)
        return {name: Standing(state, NOW, self.proven, reserved=state is CLOSED) for name, state in self.states.items()}


def a_gate(**states: BreakerState) -> tuple[Gate, Shared]:
    """A gate that has asked once, and what it asks."""
    shared = Shared(**states)
    gate = Gate(states, shared.ask)
    asyncio.run(gate.ask())
    return gate, shared


def tally_of(gate: Gate, shared: Shared, provider: str = "fcm") -> Tally:
    asyncio.run(gate.ask())
    return shared.tallies[-1][provider]


def seen(tally: Tally) -> Tally:
    """What a tally says of the provider, without what it asks for."""
    return replace(tally, reserved=False, leaving=False, accepted=set())


@pytest.mark.parametrize(
    ("states", "lanes"),
    [
        ({"fcm": CLOSED}, ("", "fcm")),
        ({"fcm": OPEN}, ()),
        ({"fcm": HALF_OPEN}, ("", "fcm")),
        ({"fcm": CLOSED, "apns": OPEN}, ("", "fcm")),
        ({"fcm": OPEN, "apns": OPEN}, ()),
        ({"fcm": CLOSED, "apns": HALF_OPEN}, ("", "fcm", "apns")),
    ],
)
def test_rows_are_claimed_for_the_providers_that_may_be_used(states: dict[str, BreakerState], lanes: tuple[str, ...]) -> None:
    found, most = asyncio.run(a_gate(**states)[0].ask())
    assert (found, bool(most)) == (lanes, bool(lanes))


def test_no_lane_is_claimed_from_in_which_nothing_is_due() -> None:
    standings = {"fcm": Standing(CLOSED, NOW, due=False), "apns": Standing(CLOSED, NOW, due=True)}
    assert asyncio.run(Gate(standings, lambda _: standings).ask())[0] == ("", "apns")
    assert asyncio.run(Gate(["fcm"], lambda _: {"fcm": standings["fcm"]}).ask())[0] == ()


def test_a_run_that_may_only_probe_claims_one_row() -> None:
    assert asyncio.run(a_gate(fcm=HALF_OPEN)[0].ask())[1] == 1
    assert asyncio.run(a_gate(fcm=HALF_OPEN, apns=OPEN)[0].ask())[1] == 1


def test_a_run_that_may_send_freely_claims_by_the_batch() -> None:
    assert asyncio.run(a_gate(fcm=CLOSED, apns=HALF_OPEN)[0].ask())[1] >= 2000


def test_an_open_gate_holds_nothing() -> None:
    gate, _ = a_gate(fcm=CLOSED)
    assert [gate.holds("fcm") for _ in range(1000)] == [None] * 1000


def test_a_held_provider_says_why() -> None:
    gate, _ = a_gate(fcm=CLOSED, apns=OPEN)
    assert gate.holds("fcm") is None
    assert gate.holds("apns") == "its breaker is open"


def test_a_probe_is_one_message_whatever_the_row_s_devices() -> None:
    gate, _ = a_gate(fcm=HALF_OPEN)
    assert [gate.holds("fcm") for _ in range(4)] == [None, *["its breaker is being probed"] * 3]


def test_a_credentials_fault_holds_this_run_s_other_messages_at_once() -> None:
    gate, _ = a_gate(fcm=CLOSED, apns=CLOSED)
    gate.note("fcm", Outcome(Kind.CREDENTIALS, "fcm 403"))
    assert gate.holds("fcm") == "fcm 403"
    assert gate.holds("apns") is None


def test_a_pause_that_is_meant_for_all_holds_this_run_s_other_messages_at_once() -> None:
    gate, _ = a_gate(fcm=CLOSED)
    gate.note("fcm", Outcome(Kind.THROTTLED, "fcm 429", retry_after=30, everyone=True))
    assert gate.holds("fcm") == "fcm 429"


def test_a_device_that_is_throttled_holds_no_other() -> None:
    gate, shared = a_gate(fcm=CLOSED)
    gate.note("fcm", Outcome(Kind.THROTTLED, "fcm 429", retry_after=30))
    assert gate.holds("fcm") is None
    assert tally_of(gate, shared).pause == 0


def test_a_429_that_does_not_say_for_whom_holds_the_others_once_three_recipients_got_it() -> None:
    gate, shared = a_gate(fcm=CLOSED)
    unsaid = classify(error(429, "RESOURCE_EXHAUSTED", "", fcm_error("QUOTA_EXCEEDED")))
    for recipient in (1, 2, 1, 2):
        assert gate.note("fcm", unsaid._replace(retry_after=7200), recipient=recipient) == unsaid._replace(retry_after=7200)
        assert gate.holds("fcm") is None
    gate.note("fcm", unsaid._replace(retry_after=90), recipient=3)
    assert gate.holds("fcm") == "fcm 429 RESOURCE_EXHAUSTED QUOTA_EXCEEDED"
    tally = tally_of(gate, shared)
    assert (tally.throttled, tally.witnesses) == (5, {"1": 7200, "2": 7200, "3": 90})


def test_a_429_that_does_not_say_for_whom_holds_nobody_while_most_messages_pass() -> None:
    gate, _ = a_gate(fcm=CLOSED)
    for recipient in range(20):
        gate.note("fcm", Outcome(Kind.SENT), recipient=recipient)
        gate.note("fcm", Outcome(Kind.THROTTLED, "fcm 429", everyone=None), recipient=recipient % 9)
        gate.note("fcm", Outcome(Kind.SENT), recipient=recipient)
    assert gate.holds("fcm") is None


def test_a_token_of_another_app_is_our_configuration_s_fault_until_the_provider_accepted_something() -> None:
    gate, shared = a_gate(apns=CLOSED)
    assert gate.note("apns", Outcome(Kind.FOREIGN, "apns 400 BadDeviceToken")).kind is Kind.UPSTREAM
    gate.note("apns", Outcome(Kind.SENT))
    assert gate.note("apns", Outcome(Kind.FOREIGN, "apns 400 BadDeviceToken")).kind is Kind.FOREIGN
    assert gate.note("apns", Outcome(Kind.FOREIGN, "apns 400 BadDeviceToken"), environment="sandbox").kind is Kind.UPSTREAM
    assert tally_of(gate, shared, "apns").accepted == {"any"}


def test_what_another_process_saw_accepted_counts_as_well() -> None:
    shared = Shared(apns=CLOSED, fcm=CLOSED)
    shared.proven = frozenset({"sandbox"})
    gate = Gate(shared.states, shared.ask)
    asyncio.run(gate.ask())
    assert gate.note("apns", Outcome(Kind.FOREIGN), environment="sandbox").kind is Kind.FOREIGN
    assert gate.note("apns", Outcome(Kind.FOREIGN)).kind is Kind.UPSTREAM


def test_the_next_look_at_the_shared_state_replaces_what_the_run_found_out_itself() -> None:
    gate, _ = a_gate(fcm=CLOSED)
    gate.note("fcm", Outcome(Kind.CREDENTIALS, "fcm 403"))
    asyncio.run(gate.ask())
    assert gate.holds("fcm") is None


# All but the credentials fault, which is counted as such, and the message that was held and never sent.
REPORTED = {
    Kind.SENT: "answered",
    Kind.DEAD: "answered",
    Kind.FOREIGN: "answered",
    Kind.REFUSED: "answered",
    Kind.THROTTLED: "answered",
    Kind.UNAVAILABLE: "failed",
    Kind.UNREACHABLE: "failed",
    Kind.UNKNOWN: "failed",
    Kind.UPSTREAM: "answered",
}


@pytest.mark.parametrize("kind", REPORTED)
def test_an_outcome_is_counted_as(kind: Kind) -> None:
    gate, shared = a_gate(fcm=CLOSED)
    gate.note("fcm", Outcome(kind, "why"))
    tally = tally_of(gate, shared)
    assert {"answered": tally.answered, "failed": tally.failed} == {"answered": 0, "failed": 0, REPORTED[kind]: 1}
    assert tally.failure == ("why" if REPORTED[kind] == "failed" else "")


def test_a_credentials_fault_is_counted_with_its_reason() -> None:
    gate, shared = a_gate(fcm=CLOSED)
    gate.note("fcm", Outcome(Kind.CREDENTIALS, "fcm 403"))
    assert tally_of(gate, shared).credentials == "fcm 403"


def test_the_longest_pause_is_in_the_tally() -> None:
    gate, shared = a_gate(fcm=CLOSED)
    for wait in (5.0, 60.0, 20.0):
        gate.note("fcm", Outcome(Kind.THROTTLED, "fcm 429", retry_after=wait, everyone=True))
    assert tally_of(gate, shared).pause == 60


def test_a_project_s_quota_without_retry_after_pauses_all_senders_for_a_minute() -> None:
    """https://firebase.google.com/docs/cloud-messaging/scale-fcm: "If no Retry-After header is included, ... 60 seconds"."""
    gate, shared = a_gate(fcm=CLOSED)
    gate.note("fcm", classify(quota("project:chat", "Messages sent per minute")))
    assert gate.holds("fcm") is not None
    assert tally_of(gate, shared).pause == 60


def test_what_was_handed_in_is_not_counted_again() -> None:
    gate, shared = a_gate(fcm=CLOSED)
    gate.note("fcm", Outcome(Kind.SENT))
    assert seen(tally_of(gate, shared)) == Tally(answered=1)
    assert seen(tally_of(gate, shared)) == Tally()


def test_providers_are_counted_apart() -> None:
    gate, shared = a_gate(fcm=CLOSED, apns=CLOSED)
    gate.note("apns", Outcome(Kind.UNAVAILABLE, "apns 503"))
    assert tally_of(gate, shared, "apns").failed == 1
    assert seen(shared.tallies[-1]["fcm"]) == Tally()


def test_a_run_that_had_the_probe_says_so_with_its_result() -> None:
    gate, shared = a_gate(fcm=HALF_OPEN)
    gate.holds("fcm")
    gate.note("fcm", Outcome(Kind.SENT))
    assert seen(tally_of(gate, shared)) == Tally(answered=1, probed=True)


def test_a_probe_stays_a_run_s_own_until_its_answer_has_come() -> None:
    gate, shared = a_gate(fcm=HALF_OPEN)
    gate.holds("fcm")
    shared.states = {"fcm": OPEN}
    assert not tally_of(gate, shared).probed
    assert gate.holds("fcm") == "its breaker is being probed"
    gate.note("fcm", Outcome(Kind.UNAVAILABLE, "fcm 503"))
    assert seen(tally_of(gate, shared)) == Tally(failed=1, failure="fcm 503", probed=True)


def test_a_run_that_found_nothing_to_probe_with_says_so() -> None:
    gate, shared = a_gate(fcm=HALF_OPEN)
    assert seen(tally_of(gate, shared)) == Tally(probed=True)


def test_a_reservation_is_given_back_with_the_next_tally() -> None:
    gate, shared = a_gate(fcm=CLOSED, apns=OPEN)
    asyncio.run(gate.ask())
    assert (shared.tallies[-1]["fcm"].reserved, shared.tallies[-1]["apns"].reserved) == (True, False)


def test_a_run_hands_in_what_it_saw_as_it_leaves() -> None:
    gate, shared = a_gate(fcm=CLOSED)
    gate.note("fcm", Outcome(Kind.SENT))
    gate.leave()
    assert (seen(shared.tallies[-1]["fcm"]), shared.tallies[-1]["fcm"].leaving) == (Tally(answered=1), True)


def test_a_run_with_nothing_to_send_does_not_take_the_probe_away_with_it() -> None:
    state = Breaker(opened_at=NOW - 60, reason="fcm 503", probe_at=NOW)

    def ask(tallies: Mapping[str, Tally]) -> Mapping[str, Standing]:
        return {"fcm": Standing(breaker.advance(state, tallies["fcm"], NOW, 1000), NOW)}

    idle, busy = Gate(["fcm"], ask), Gate(["fcm"], ask)
    assert asyncio.run(idle.ask())[1] == 1
    idle.leave()
    assert asyncio.run(busy.ask())[1] == 1


def test_the_devices_of_one_recipient_fail_once_until_the_run_asks_again() -> None:
    """The endpoints of his browsers are his own words: a thousand that fail would open the breaker for everyone."""
    gate, shared = a_gate(webpush=CLOSED, fcm=CLOSED)
    for recipient in (5, 5, 5, 6):
        gate.note("webpush", Outcome(Kind.UNAVAILABLE, "webpush 503"), recipient=recipient)
    gate.note("fcm", Outcome(Kind.UNAVAILABLE, "fcm 503"), recipient=5)
    assert tally_of(gate, shared, "webpush").failed == 2
    assert shared.tallies[-1]["fcm"].failed == 1
    gate.note("webpush", Outcome(Kind.UNAVAILABLE, "webpush 503"), recipient=5)
    assert tally_of(gate, shared, "webpush").failed == 1
    gate.note("webpush", Outcome(Kind.UNKNOWN, "webpush 405"), recipient=7)
    assert seen(tally_of(gate, shared, "webpush")) == Tally(answered=1)
