"""A provider's health: when its breaker opens, how it is probed and closed, its pauses, and its rate."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications.breaker import (
    BURST_SECONDS,
    FIRST_PROBE_SECONDS,
    OPEN_AT_FAILURES,
    OPEN_AT_SHARE,
    PROBE_LEASE_SECONDS,
    RAMP_SECONDS,
    RAMP_START,
    RESERVED,
    SLOWEST_PROBE_SECONDS,
    WINDOW_SECONDS,
    Admission,
    Health,
    Report,
    advance,
)

from .made import NOW

RATE = 1000.0
BURST = RATE * BURST_SECONDS
OPEN, PROBE, HELD = Admission.OPEN, Admission.PROBE, Admission.HELD
NOTHING = Report()
LEAVING = Report(leaving=True)
ONE_ANSWER = Report(answered=1, probed=True)
ONE_FAILURE = Report(failed=1, failure="fcm 503", probed=True)


def batch(sent: int) -> Report:
    """What a run reports that was admitted and sent so many."""
    return Report(answered=sent, admitted=True)


@dataclass
class Shared:
    """The shared state and a clock: `tell` hands a report in and says what its run may do next."""

    health: Health = field(default_factory=Health)
    now: float = NOW
    rate: float = RATE

    def tell(self, report: Report = NOTHING, *, after: float = 0) -> Admission:
        self.now += after
        return advance(self.health, report, self.now, self.rate)

    def opened(self) -> "Shared":
        self.tell(Report(credentials="fcm 403"))
        return self

    def probed(self) -> "Shared":
        """Let a run have the probe."""
        self.now = self.health.probe_at
        assert self.tell() is PROBE
        return self

    def recovered(self) -> "Shared":
        self.opened().probed().tell(ONE_ANSWER)
        return self

    @property
    def is_open(self) -> bool:
        return self.health.opened_at is not None


@pytest.fixture
def shared() -> Shared:
    """A provider that no one has used yet."""
    return Shared()


def test_a_provider_that_no_one_has_used_yet_is_open(shared: Shared) -> None:
    assert shared.tell() is OPEN


def test_answers_keep_it_open(shared: Shared) -> None:
    assert [shared.tell(Report(answered=100), after=1) for _ in range(60)] == [OPEN] * 60


def test_one_credentials_fault_opens_the_breaker_and_says_why(shared: Shared) -> None:
    assert shared.tell(Report(answered=500, credentials="fcm 403: check the project")) is HELD
    assert (shared.health.opened_at, shared.health.reason) == (NOW, "fcm 403: check the project")


THRESHOLDS: dict[str, tuple[list[Report], bool]] = {
    "as many failures as it takes": ([Report(failed=OPEN_AT_FAILURES, failure="x")], True),
    "one failure fewer": ([Report(failed=OPEN_AT_FAILURES - 1, failure="x")], False),
    "just the share that it takes": ([Report(failed=80, answered=20, failure="x")], True),
    "one answer more": ([Report(failed=80, answered=21, failure="x")], False),
    "failures that several runs saw": ([Report(failed=7, failure="x")] * 3, True),
    "failures among the answers that several runs saw": ([Report(answered=100), Report(failed=60, failure="x")], False),
    "nothing but answers": ([Report(answered=10_000)], False),
}


@pytest.mark.parametrize("what", THRESHOLDS)
def test_sustained_failure_opens_the_breaker_and_less_does_not(shared: Shared, what: str) -> None:
    reports, opens = THRESHOLDS[what]
    assert (OPEN_AT_FAILURES, OPEN_AT_SHARE) == (20, 0.8)
    for report in reports:
        shared.tell(report)
    assert shared.is_open is opens


def test_it_opens_for_the_reason_of_the_last_failure(shared: Shared) -> None:
    shared.tell(Report(failed=100, failure="fcm 503 UNAVAILABLE"))
    assert shared.health.reason == "fcm 503 UNAVAILABLE"


def test_failures_of_another_window_do_not_count(shared: Shared) -> None:
    shared.tell(Report(failed=15, failure="x"))
    shared.tell(Report(failed=15, failure="x"), after=WINDOW_SECONDS)
    assert not shared.is_open


def test_while_it_is_open_nobody_may_send(shared: Shared) -> None:
    shared.opened()
    assert [shared.tell(after=0.1) for _ in range(int(FIRST_PROBE_SECONDS * 10) - 1)] == [HELD] * 19


def test_later_answers_to_requests_from_before_do_not_close_it(shared: Shared) -> None:
    shared.opened()
    assert shared.tell(Report(answered=100)) is HELD
    assert shared.is_open


def test_the_first_probe_is_due_within_seconds(shared: Shared) -> None:
    shared.opened()
    assert FIRST_PROBE_SECONDS <= shared.health.probe_at - NOW <= FIRST_PROBE_SECONDS * 1.2


def test_one_run_gets_the_probe_and_the_others_are_held(shared: Shared) -> None:
    shared.opened()
    shared.now = shared.health.probe_at
    assert [shared.tell() for _ in range(5)] == [PROBE, HELD, HELD, HELD, HELD]


@pytest.mark.parametrize(("seconds", "admission"), [(-0.1, HELD), (0, PROBE)])
def test_a_prober_that_died_leaves_the_probe_to_another_when_its_lease_ends(
    shared: Shared, seconds: float, admission: Admission
) -> None:
    shared.opened().probed()
    assert shared.tell(after=PROBE_LEASE_SECONDS + seconds) is admission


@pytest.mark.parametrize("failure", [ONE_FAILURE, Report(credentials="fcm 401", probed=True)], ids=["failed", "credentials"])
def test_a_probe_that_fails_leaves_it_open(shared: Shared, failure: Report) -> None:
    shared.opened().probed()
    assert shared.tell(failure) is HELD
    assert shared.health.opened_at == NOW
    assert shared.health.reason == (failure.failure or failure.credentials)


def test_each_failed_probe_doubles_the_wait_up_to_its_cap(shared: Shared) -> None:
    shared.opened()
    for failed in range(6):
        step = min(FIRST_PROBE_SECONDS * 2**failed, SLOWEST_PROBE_SECONDS)
        assert step <= shared.health.probe_at - shared.now <= step * 1.2
        shared.probed().tell(ONE_FAILURE)


def test_a_recovery_is_noticed_within_seconds() -> None:
    assert SLOWEST_PROBE_SECONDS <= 10


def test_the_wait_stays_at_its_cap_through_an_outage_of_days(shared: Shared) -> None:
    shared.opened()
    shared.health.probes = 100_000
    shared.probed().tell(ONE_FAILURE)
    assert shared.health.probe_at - shared.now <= SLOWEST_PROBE_SECONDS * 1.2


def test_a_probe_that_is_answered_closes_the_breaker_and_frees_its_run(shared: Shared) -> None:
    shared.opened().probed()
    assert shared.tell(ONE_ANSWER) is OPEN
    assert (shared.health.opened_at, shared.health.reason, shared.health.probes) == (None, "", 0)


def test_failures_from_before_do_not_open_it_again_at_once(shared: Shared) -> None:
    shared.tell(Report(failed=1000, failure="x"))
    shared.probed().tell(ONE_ANSWER)
    shared.tell(Report(failed=1, failure="x"))
    assert not shared.is_open


def test_it_opens_again_if_the_fault_is_still_there(shared: Shared) -> None:
    shared.recovered()
    assert shared.tell(Report(credentials="fcm 403")) is HELD


def test_a_run_that_ends_without_having_probed_leaves_the_probe_to_the_next(shared: Shared) -> None:
    shared.opened().probed()
    assert shared.tell(Report(probed=True, leaving=True)) is HELD
    assert shared.tell(after=0.1) is PROBE


def test_a_run_whose_row_needed_no_message_may_probe_with_its_next_row(shared: Shared) -> None:
    """Else a queue that begins with a thousand muted rows is walked at one row a beat tick, and nothing is probed."""
    shared.opened().probed()
    assert shared.tell(Report(probed=True)) is PROBE


def test_a_run_that_ends_takes_no_probe_with_it(shared: Shared) -> None:
    shared.opened()
    shared.now = shared.health.probe_at
    assert shared.tell(LEAVING) is HELD
    assert shared.tell() is PROBE


def test_a_provider_that_asks_for_a_pause_gets_it(shared: Shared) -> None:
    assert shared.tell(Report(answered=1, pause=30)) is HELD
    assert [shared.tell(after=29.9), shared.tell(after=0.1)] == [HELD, OPEN]


def test_the_longest_pause_that_was_asked_for_counts(shared: Shared) -> None:
    shared.tell(Report(pause=30))
    shared.tell(Report(pause=5))
    assert shared.tell(after=29) is HELD


def test_an_open_breaker_is_not_probed_during_a_pause(shared: Shared) -> None:
    shared.opened()
    shared.tell(Report(pause=60))
    assert shared.tell(after=59) is HELD
    assert shared.tell(after=1) is PROBE


def test_the_bucket_starts_full(shared: Shared) -> None:
    shared.tell(LEAVING)
    assert shared.health.tokens == BURST


def test_an_admission_takes_a_batch_out_in_advance_and_the_next_report_gives_back_what_was_not_sent(shared: Shared) -> None:
    shared.tell()
    assert shared.health.tokens == BURST - RESERVED
    shared.tell(Report(answered=100, admitted=True, leaving=True))
    assert shared.health.tokens == BURST - 100


def test_who_sends_faster_than_the_rate_is_held_until_the_bucket_has_filled(shared: Shared) -> None:
    assert shared.tell(Report(answered=int(BURST) + 500)) is HELD
    assert shared.tell(after=0.49) is HELD
    assert shared.tell(after=0.02) is OPEN


def test_a_run_that_died_with_its_admission_does_not_stop_a_slow_rate_for_minutes() -> None:
    shared = Shared(rate=1)
    assert shared.tell() is OPEN
    assert shared.tell(after=60) is OPEN


def test_failed_messages_count_against_the_rate_too(shared: Shared) -> None:
    assert shared.tell(Report(answered=int(BURST), failed=10, failure="x")) is HELD


@pytest.mark.parametrize(
    ("seconds", "share"), [(0.5, RAMP_START), (RAMP_SECONDS / 4, 0.25), (RAMP_SECONDS / 2, 0.5), (RAMP_SECONDS, 1), (3600, 1)]
)
def test_after_a_recovery_the_rate_climbs_over_a_minute(shared: Shared, seconds: float, share: float) -> None:
    shared.recovered()
    shared.tell(LEAVING, after=seconds)
    shared.health.tokens = 0
    shared.tell(LEAVING, after=0.001)
    assert shared.health.tokens == pytest.approx(RATE * 0.001 * share, rel=0.05)


@pytest.mark.parametrize("rate", [1, 100, 10_000])
def test_after_a_recovery_the_herd_is_held_back(rate: float) -> None:
    """Runs that always send what they may, a batch of 500 at most, in the first minute after a recovery."""
    shared = Shared(rate=rate).recovered()
    sent = 0
    report = NOTHING
    for _ in range(6000):
        report = batch(500) if shared.tell(report, after=0.01) is OPEN else NOTHING
        sent += report.answered
    assert sent <= rate * RAMP_SECONDS * 0.6 + 500


def test_after_a_recovery_twenty_runs_do_not_each_take_what_is_there_for_all() -> None:
    """Each asks, sends its batch, and reports it a second later when it asks again."""
    shared = Shared().recovered()
    sent, out = 0, [NOTHING] * 20
    for _ in range(10):
        shared.now += 1
        out = [batch(500) if shared.tell(report) is OPEN else NOTHING for report in out]
        sent += sum(report.answered for report in out)
    allowed = sum(RATE * max(RAMP_START, second / RAMP_SECONDS) for second in range(1, 11))
    assert sent <= 3 * allowed


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 3000)), min_size=1, max_size=30))
def test_the_bucket_never_holds_more_than_a_burst(steps: list[tuple[float, int]]) -> None:
    shared = Shared()
    for after, sent in steps:
        shared.tell(Report(answered=sent), after=after)
        assert shared.health.tokens <= BURST - sent


@given(st.lists(st.tuples(st.floats(0.01, 3), st.integers(0, 3000)), min_size=1, max_size=60))
def test_who_asks_before_sending_keeps_the_rate(steps: list[tuple[float, int]]) -> None:
    """One sender, who reports what it sent before it asks again: the burst, the rate, and the last batch on top."""
    shared = Shared()
    started, sent, report = shared.now, 0, NOTHING
    for after, most in steps:
        report = batch(most) if shared.tell(report, after=after) is OPEN else NOTHING
        sent += report.answered
    assert sent <= BURST + RATE * (shared.now - started) + 3000


reports = st.builds(
    Report,
    answered=st.integers(0, 100),
    failed=st.integers(0, 100),
    failure=st.just("fcm 503"),
    credentials=st.sampled_from(["", "", "", "fcm 403"]),
    pause=st.sampled_from([0.0, 0.0, 0.0, 7.0]),
    probed=st.booleans(),
)
stories = st.lists(st.tuples(st.floats(0, 40), reports), max_size=60)


def told(story: list[tuple[float, Report]]) -> Iterator[tuple[Shared, Report, Admission]]:
    shared = Shared()
    for after, report in story:
        yield shared, report, shared.tell(report, after=after)


@given(stories)
def test_nobody_ever_sends_freely_while_the_breaker_is_open(story: list[tuple[float, Report]]) -> None:
    for shared, _, admission in told(story):
        assert admission is not OPEN or not shared.is_open
        assert admission is not PROBE or shared.is_open


@given(stories)
def test_nobody_ever_sends_during_a_pause(story: list[tuple[float, Report]]) -> None:
    for shared, _, admission in told(story):
        assert admission is HELD or shared.now >= shared.health.paused_until


@given(stories)
def test_only_an_answered_probe_closes_the_breaker(story: list[tuple[float, Report]]) -> None:
    was_open = False
    for shared, report, _ in told(story):
        if was_open and not shared.is_open:
            assert report.probed
            assert report.answered
            assert not report.failed
            assert not report.credentials
        was_open = shared.is_open


@given(stories, st.floats(60, 1000))
def test_a_breaker_is_never_stuck(story: list[tuple[float, Report]], later: float) -> None:
    shared = Shared()
    for after, report in story:
        shared.tell(report, after=after)
    assert shared.tell(after=later) in {OPEN, PROBE}


@given(stories)
def test_no_number_runs_away(story: list[tuple[float, Report]]) -> None:
    for shared, _, _ in told(story):
        health = shared.health
        assert all(isfinite(value) for value in (health.tokens, health.probe_at, health.window_at, health.paused_until))
        assert health.probe_at <= shared.now + PROBE_LEASE_SECONDS
