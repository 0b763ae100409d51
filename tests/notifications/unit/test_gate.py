"""The gate: what one run may send between two looks at the shared health, and what it reports of the answers."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tasks.notifications import breaker
from tasks.notifications.breaker import Admission, Health, Report
from tasks.notifications.gate import Gate
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers.fcm import classify

from .made import NOW
from .test_fcm_answers import quota

OPEN, PROBE, HELD = Admission.OPEN, Admission.PROBE, Admission.HELD


class Shared:
    """The shared state as a test dictates it: admissions by provider, and the reports that were handed in."""

    def __init__(self, **admissions: Admission) -> None:
        self.admissions: dict[str, Admission] = admissions
        self.reports: list[Mapping[str, Report]] = []

    def ask(self, reports: Mapping[str, Report]) -> Mapping[str, Admission]:
        self.reports.append(reports)
        return self.admissions


def a_gate(**admissions: Admission) -> tuple[Gate, Shared]:
    """A gate that has asked once, and what it asks."""
    shared = Shared(**admissions)
    gate = Gate(admissions, shared.ask)
    gate.ask()
    return gate, shared


def report_of(gate: Gate, shared: Shared, provider: str = "fcm") -> Report:
    gate.ask()
    return shared.reports[-1][provider]


def seen(report: Report) -> Report:
    """What a report says of the provider, without what it asks for."""
    return replace(report, admitted=False, leaving=False)


@pytest.mark.parametrize(
    ("admissions", "lanes"),
    [
        ({"fcm": OPEN}, ("fcm",)),
        ({"fcm": HELD}, ()),
        ({"fcm": PROBE}, ("fcm",)),
        ({"fcm": OPEN, "apns": HELD}, ("fcm",)),
        ({"fcm": HELD, "apns": HELD}, ()),
        ({"fcm": OPEN, "apns": PROBE}, ("fcm", "apns")),
    ],
)
def test_rows_are_claimed_for_the_providers_that_may_be_used(admissions: dict[str, Admission], lanes: tuple[str, ...]) -> None:
    assert a_gate(**admissions)[0].ask()[0] == lanes


def test_a_run_that_may_only_probe_claims_one_row() -> None:
    assert a_gate(fcm=PROBE)[0].ask()[1] == 1
    assert a_gate(fcm=PROBE, apns=HELD)[0].ask()[1] == 1


def test_a_run_that_may_send_freely_claims_by_the_batch() -> None:
    assert a_gate(fcm=OPEN, apns=PROBE)[0].ask()[1] >= 2000


def test_an_open_gate_holds_nothing() -> None:
    gate, _ = a_gate(fcm=OPEN)
    assert [gate.holds("fcm") for _ in range(1000)] == [None] * 1000


def test_a_held_provider_says_why() -> None:
    gate, _ = a_gate(fcm=OPEN, apns=HELD)
    assert gate.holds("fcm") is None
    assert gate.holds("apns") == "its breaker is open"


def test_a_probe_is_one_message_whatever_the_row_s_devices() -> None:
    gate, _ = a_gate(fcm=PROBE)
    assert [gate.holds("fcm") for _ in range(4)] == [None, *["its breaker is being probed"] * 3]


def test_a_credentials_fault_holds_this_run_s_other_messages_at_once() -> None:
    gate, _ = a_gate(fcm=OPEN, apns=OPEN)
    gate.note("fcm", Outcome(Kind.CREDENTIALS, "fcm 403"))
    assert gate.holds("fcm") == "fcm 403"
    assert gate.holds("apns") is None


def test_a_pause_that_is_meant_for_all_holds_this_run_s_other_messages_at_once() -> None:
    gate, _ = a_gate(fcm=OPEN)
    gate.note("fcm", Outcome(Kind.THROTTLED, "fcm 429", retry_after=30, everyone=True))
    assert gate.holds("fcm") == "fcm 429"


def test_a_device_that_is_throttled_holds_no_other() -> None:
    gate, shared = a_gate(fcm=OPEN)
    gate.note("fcm", Outcome(Kind.THROTTLED, "fcm 429", retry_after=30))
    assert gate.holds("fcm") is None
    assert report_of(gate, shared).pause == 0


def test_the_next_look_at_the_shared_state_replaces_what_the_run_found_out_itself() -> None:
    gate, _ = a_gate(fcm=OPEN)
    gate.note("fcm", Outcome(Kind.CREDENTIALS, "fcm 403"))
    gate.ask()
    assert gate.holds("fcm") is None


# All but the credentials fault, which is reported as such, and the message that was held and never sent.
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
def test_an_outcome_is_reported_as(kind: Kind) -> None:
    gate, shared = a_gate(fcm=OPEN)
    gate.note("fcm", Outcome(kind, "why"))
    report = report_of(gate, shared)
    assert {"answered": report.answered, "failed": report.failed} == {"answered": 0, "failed": 0, REPORTED[kind]: 1}
    assert report.failure == ("why" if REPORTED[kind] == "failed" else "")


def test_a_credentials_fault_is_reported_with_its_reason() -> None:
    gate, shared = a_gate(fcm=OPEN)
    gate.note("fcm", Outcome(Kind.CREDENTIALS, "fcm 403"))
    assert report_of(gate, shared).credentials == "fcm 403"


def test_the_longest_pause_is_reported() -> None:
    gate, shared = a_gate(fcm=OPEN)
    for wait in (5.0, 60.0, 20.0):
        gate.note("fcm", Outcome(Kind.THROTTLED, "fcm 429", retry_after=wait, everyone=True))
    assert report_of(gate, shared).pause == 60


def test_a_project_s_quota_without_retry_after_pauses_all_senders_for_a_minute() -> None:
    """https://firebase.google.com/docs/cloud-messaging/scale-fcm: "If no Retry-After header is included, ... 60 seconds"."""
    gate, shared = a_gate(fcm=OPEN)
    gate.note("fcm", classify(quota("project:chat", "Messages sent per minute")))
    assert gate.holds("fcm") is not None
    assert report_of(gate, shared).pause == 60


def test_what_was_reported_is_not_reported_again() -> None:
    gate, shared = a_gate(fcm=OPEN)
    gate.note("fcm", Outcome(Kind.SENT))
    assert seen(report_of(gate, shared)) == Report(answered=1)
    assert seen(report_of(gate, shared)) == Report()


def test_providers_are_reported_apart() -> None:
    gate, shared = a_gate(fcm=OPEN, apns=OPEN)
    gate.note("apns", Outcome(Kind.UNAVAILABLE, "apns 503"))
    assert report_of(gate, shared, "apns").failed == 1
    assert seen(shared.reports[-1]["fcm"]) == Report()


def test_a_run_that_had_the_probe_says_so_with_its_result() -> None:
    gate, shared = a_gate(fcm=PROBE)
    gate.holds("fcm")
    gate.note("fcm", Outcome(Kind.SENT))
    assert seen(report_of(gate, shared)) == Report(answered=1, probed=True)


def test_a_probe_stays_a_run_s_own_until_its_answer_has_come() -> None:
    gate, shared = a_gate(fcm=PROBE)
    gate.holds("fcm")
    shared.admissions = {"fcm": HELD}
    assert not report_of(gate, shared).probed
    assert gate.holds("fcm") == "its breaker is being probed"
    gate.note("fcm", Outcome(Kind.UNAVAILABLE, "fcm 503"))
    assert seen(report_of(gate, shared)) == Report(failed=1, failure="fcm 503", probed=True)


def test_a_run_that_found_nothing_to_probe_with_says_so() -> None:
    gate, shared = a_gate(fcm=PROBE)
    assert seen(report_of(gate, shared)) == Report(probed=True)


def test_what_an_admission_reserved_is_given_back_with_the_next_report() -> None:
    gate, shared = a_gate(fcm=OPEN, apns=HELD)
    gate.ask()
    assert (shared.reports[-1]["fcm"].admitted, shared.reports[-1]["apns"].admitted) == (True, False)


def test_a_run_hands_in_what_it_saw_as_it_leaves() -> None:
    gate, shared = a_gate(fcm=OPEN)
    gate.note("fcm", Outcome(Kind.SENT))
    gate.leave()
    assert (seen(shared.reports[-1]["fcm"]), shared.reports[-1]["fcm"].leaving) == (Report(answered=1), True)


def test_a_run_with_nothing_to_send_does_not_take_the_probe_away_with_it() -> None:
    state = Health(opened_at=NOW - 60, reason="fcm 503", probe_at=NOW)

    def ask(reports: Mapping[str, Report]) -> Mapping[str, Admission]:
        return {"fcm": breaker.advance(state, reports["fcm"], NOW, 1000)}

    idle, busy = Gate(["fcm"], ask), Gate(["fcm"], ask)
    assert idle.ask() == (("fcm",), 1)
    idle.leave()
    assert busy.ask() == (("fcm",), 1)
