"""A provider's breaker: when it opens, how it is probed and closed, the provider's pauses, and its rate."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications.breaker import (
    BURST_SECONDS,
    FIRST_PROBE_SECONDS,
    NEXT_PROBE_SECONDS,
    OPEN_AT_FAILURES,
    OPEN_AT_IN_A_ROW,
    OPEN_AT_SHARE,
    PROBE_LEASE_SECONDS,
    RAMP_SECONDS,
    RAMP_START,
    RESERVED,
    WINDOW_SECONDS,
    Breaker,
    BreakerState,
    Tally,
    advance,
)

from .made import NOW

RATE = 1000.0
BURST = RATE * BURST_SECONDS
CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
NOTHING = Tally()
LEAVING = Tally(leaving=True)
ONE_ANSWER = Tally(answered=1, probed=True)
ONE_FAILURE = Tally(failed=1, failure="fcm 503", probed=True)


def batch(sent: int) -> Tally:
    """The tally of a run that had a reservation and sent so many."""
    return Tally(answered=sent, reserved=True)


@dataclass
class Shared:
    """A shared breaker and a clock: `tell` adds a tally and returns how the breaker stands for its run."""

    breaker: Breaker = field(default_factory=Breaker)
    now: float = NOW
    rate: float = RATE

    def tell(self, tally: Tally = NOTHING, *, after: float = 0) -> BreakerState:
        self.now += after
        return advance(self.breaker, tally, self.now, self.rate)

    def opened(self) -> "Shared":
        self.tell(Tally(credentials="fcm 403"))
        return self

    def probed(self) -> "Shared":
        """Let a run have the probe."""
        self.now = self.breaker.probe_at
        assert self.tell() is HALF_OPEN
        return self

    def recovered(self) -> "Shared":
        self.opened().probed().tell(ONE_ANSWER)
        return self

    @property
    def is_open(self) -> bool:
        return bool(self.breaker.opened_at)


@pytest.fixture
def shared() -> Shared:
    """A provider that no one has used yet."""
    return Shared()


def test_the_breaker_of_a_provider_that_no_one_has_used_yet_is_closed(shared: Shared) -> None:
    assert shared.tell() is CLOSED


def test_answers_keep_it_closed(shared: Shared) -> None:
    assert [shared.tell(Tally(answered=100), after=1) for _ in range(60)] == [CLOSED] * 60


def test_one_credentials_fault_opens_the_breaker_and_says_why(shared: Shared) -> None:
    assert shared.tell(Tally(answered=500, credentials="fcm 403: check the project")) is OPEN
    assert (shared.breaker.opened_at, shared.breaker.reason) == (NOW, "fcm 403: check the project")


THRESHOLDS: dict[str, tuple[list[Tally], bool]] = {
    "as many failures as it takes": ([Tally(failed=OPEN_AT_FAILURES, failure="x")], True),
    "one failure fewer": ([Tally(failed=OPEN_AT_FAILURES - 1, answered=1, failure="x")], False),
    "enough in a row": ([Tally(failed=1, failure="x")] * OPEN_AT_IN_A_ROW, True),
    "one in a row fewer": ([Tally(failed=1, failure="x")] * (OPEN_AT_IN_A_ROW - 1), False),
    "an answer among them": (
        [*[Tally(failed=1, failure="x")] * 4, Tally(answered=1), *[Tally(failed=1, failure="x")] * 4],
        False,
    ),
    "just the share that it takes": ([Tally(failed=80, answered=20, failure="x")], True),
    "one answer more": ([Tally(failed=80, answered=21, failure="x")], False),
    "failures that several runs saw": ([Tally(failed=7, failure="x")] * 3, True),
    "failures among the answers that several runs saw": ([Tally(answered=100), Tally(failed=60, failure="x")], False),
    "nothing but answers": ([Tally(answered=10_000)], False),
}


@pytest.mark.parametrize("what", THRESHOLDS)
def test_sustained_failure_opens_the_breaker_and_less_does_not(shared: Shared, what: str) -> None:
    tallies, opens = THRESHOLDS[what]
    assert (OPEN_AT_FAILURES, OPEN_AT_SHARE) == (20, 0.8)
    for tally in tallies:
        shared.tell(tally)
    assert shared.is_open is opens


def test_it_opens_for_the_reason_of_the_last_failure(shared: Shared) -> None:
    shared.tell(Tally(failed=100, failure="fcm 503 UNAVAILABLE"))
    assert shared.breaker.reason == "fcm 503 UNAVAILABLE"


def test_failures_of_another_window_do_not_count(shared: Shared) -> None:
    shared.tell(Tally(failed=15, answered=1, failure="x"))
    shared.tell(Tally(failed=15, answered=1, failure="x"), after=WINDOW_SECONDS)
    assert not shared.is_open


def test_failures_in_a_row_count_however_far_apart_they_are(shared: Shared) -> None:
    """A chat with one message an hour must not lose what a busy one keeps."""
    assert OPEN_AT_IN_A_ROW <= 5
    for _ in range(OPEN_AT_IN_A_ROW):
        assert not shared.is_open
        shared.tell(Tally(failed=1, failure="fcm 503"), after=3600)
    assert (shared.is_open, shared.breaker.reason) == (True, "fcm 503")


def test_nothing_that_others_do_opens_it_without_a_failure_of_their_own(shared: Shared) -> None:
    shared.breaker.failed_in_a_row = 100
    assert shared.tell() is CLOSED


def asked_to_wait(**recipients: float) -> Tally:
    return Tally(answered=len(recipients), throttled=len(recipients), witnesses=recipients)


def test_all_wait_when_three_recipients_were_asked_to_within_ten_seconds_whichever_runs_saw_it(shared: Shared) -> None:
    assert WINDOW_SECONDS == 10
    assert shared.tell(asked_to_wait(a=7200)) is CLOSED
    assert shared.tell(asked_to_wait(a=7200, b=60), after=3) is CLOSED
    assert shared.tell(asked_to_wait(c=60), after=3) is OPEN
    assert shared.breaker.paused_until == shared.now + 60


def test_nobody_waits_for_three_while_most_messages_pass_whichever_runs_saw_it(shared: Shared) -> None:
    assert shared.tell(Tally(answered=100, throttled=3, witnesses={"a": 60, "b": 60, "c": 60})) is CLOSED
    assert shared.tell(asked_to_wait(d=60), after=1) is CLOSED
    assert shared.tell(Tally(answered=6, throttled=1, witnesses={"a": 60}), after=1) is CLOSED
    assert shared.tell(Tally(answered=100, throttled=100, witnesses={"a": 60}), after=1) is OPEN


def test_one_recipient_that_is_asked_to_wait_again_and_again_holds_no_other(shared: Shared) -> None:
    assert [shared.tell(asked_to_wait(a=7200), after=1) for _ in range(30)] == [CLOSED] * 30


def test_three_recipients_that_are_asked_to_wait_far_apart_hold_no_other(shared: Shared) -> None:
    assert [shared.tell(asked_to_wait(**{name: 60}), after=WINDOW_SECONDS) for name in "abcdef"] == [CLOSED] * 6


def test_it_is_remembered_where_the_provider_ever_took_a_message(shared: Shared) -> None:
    shared.tell(Tally(answered=1))
    assert shared.breaker.accepted == ""
    for environment in ("sandbox", "any", "sandbox"):
        shared.tell(Tally(answered=1, accepted={environment}), after=5)
    shared.tell(Tally(failed=1, failure="x"), after=5)
    assert shared.breaker.accepted == "any sandbox"


def test_what_other_credentials_proved_is_forgotten(shared: Shared) -> None:
    """Else every token would be foreign, for good, once a wrong key or topic was set."""
    for accepted in ("any:aaaaaaaa", "sandbox:aaaaaaaa", "any:bbbbbbbb"):
        shared.tell(Tally(answered=1, accepted={accepted}))
    assert shared.breaker.accepted == "any:bbbbbbbb"


def test_while_it_is_open_nobody_may_send(shared: Shared) -> None:
    shared.opened()
    assert [shared.tell(after=0.1) for _ in range(int(FIRST_PROBE_SECONDS * 10) - 1)] == [OPEN] * 19


def test_later_answers_to_requests_from_before_do_not_close_it(shared: Shared) -> None:
    shared.opened()
    assert shared.tell(Tally(answered=100)) is OPEN
    assert shared.is_open


def test_the_first_probe_is_due_within_seconds(shared: Shared) -> None:
    shared.opened()
    assert FIRST_PROBE_SECONDS <= shared.breaker.probe_at - NOW <= FIRST_PROBE_SECONDS * 1.2


def test_one_run_gets_the_probe_and_for_the_others_it_stays_open(shared: Shared) -> None:
    shared.opened()
    shared.now = shared.breaker.probe_at
    assert [shared.tell() for _ in range(5)] == [HALF_OPEN, OPEN, OPEN, OPEN, OPEN]


@pytest.mark.parametrize(("seconds", "state"), [(-0.1, OPEN), (0, HALF_OPEN)])
def test_a_prober_that_died_leaves_the_probe_to_another_when_its_lease_ends(
    shared: Shared, seconds: float, state: BreakerState
) -> None:
    shared.opened().probed()
    assert shared.tell(after=PROBE_LEASE_SECONDS + seconds) is state


@pytest.mark.parametrize("failure", [ONE_FAILURE, Tally(credentials="fcm 401", probed=True)], ids=["failed", "credentials"])
def test_a_probe_that_fails_leaves_it_open(shared: Shared, failure: Tally) -> None:
    shared.opened().probed()
    assert shared.tell(failure) is OPEN
    assert shared.breaker.opened_at == NOW
    assert shared.breaker.reason == (failure.failure or failure.credentials)


def test_the_next_probe_is_due_below_beats_tick_however_many_failed(shared: Shared) -> None:
    shared.opened()
    for _ in range(100):
        shared.probed().tell(ONE_FAILURE)
    assert NEXT_PROBE_SECONDS <= shared.breaker.probe_at - shared.now <= NEXT_PROBE_SECONDS * 1.2 < 5


def test_a_probe_that_is_answered_closes_the_breaker_and_frees_its_run(shared: Shared) -> None:
    shared.opened().probed()
    assert shared.tell(ONE_ANSWER) is CLOSED
    assert (shared.breaker.opened_at, shared.breaker.reason) == (0, "")


def test_failures_from_before_do_not_open_it_again_at_once(shared: Shared) -> None:
    shared.tell(Tally(failed=1000, failure="x"))
    shared.probed().tell(ONE_ANSWER)
    shared.tell(Tally(failed=1, failure="x"))
    assert not shared.is_open


def test_it_opens_again_if_the_fault_is_still_there(shared: Shared) -> None:
    shared.recovered()
    assert shared.tell(Tally(credentials="fcm 403")) is OPEN


def test_a_run_that_ends_without_having_probed_leaves_the_probe_to_the_next(shared: Shared) -> None:
    shared.opened().probed()
    assert shared.tell(Tally(probed=True, leaving=True)) is OPEN
    assert shared.tell(after=0.1) is HALF_OPEN


def test_a_run_whose_row_needed_no_message_may_probe_with_its_next_row(shared: Shared) -> None:
    """Else a queue that begins with a thousand muted rows is walked at one row a beat tick, and nothing is probed."""
    shared.opened().probed()
    assert shared.tell(Tally(probed=True)) is HALF_OPEN


def test_a_run_that_ends_takes_no_probe_with_it(shared: Shared) -> None:
    shared.opened()
    shared.now = shared.breaker.probe_at
    assert shared.tell(LEAVING) is OPEN
    assert shared.tell() is HALF_OPEN


def test_a_provider_that_asks_for_a_pause_gets_it(shared: Shared) -> None:
    assert shared.tell(Tally(answered=1, pause=30)) is OPEN
    assert [shared.tell(after=29.9), shared.tell(after=0.1)] == [OPEN, CLOSED]


def test_the_longest_pause_that_was_asked_for_counts(shared: Shared) -> None:
    shared.tell(Tally(pause=30))
    shared.tell(Tally(pause=5))
    assert shared.tell(after=29) is OPEN


def test_an_open_breaker_is_not_probed_during_a_pause(shared: Shared) -> None:
    shared.opened()
    shared.tell(Tally(pause=60))
    assert shared.tell(after=59) is OPEN
    assert shared.tell(after=1) is HALF_OPEN


def test_the_bucket_starts_full(shared: Shared) -> None:
    shared.tell(LEAVING)
    assert shared.breaker.tokens == BURST


def test_a_run_takes_a_batch_out_in_advance_and_its_next_tally_gives_back_what_was_not_sent(
    shared: Shared,
) -> None:
    shared.tell()
    assert shared.breaker.tokens == BURST - RESERVED
    shared.tell(Tally(answered=100, reserved=True, leaving=True))
    assert shared.breaker.tokens == BURST - 100


def test_who_sends_faster_than_the_rate_is_held_until_the_bucket_has_filled(shared: Shared) -> None:
    assert shared.tell(Tally(answered=int(BURST) + 500)) is OPEN
    assert shared.tell(after=0.49) is OPEN
    assert shared.tell(after=0.02) is CLOSED


def test_a_run_that_died_with_its_reservation_does_not_stop_a_slow_rate_for_minutes() -> None:
    shared = Shared(rate=1)
    assert shared.tell() is CLOSED
    assert shared.tell(after=60) is CLOSED


def test_failed_messages_count_against_the_rate_too(shared: Shared) -> None:
    assert shared.tell(Tally(answered=int(BURST), failed=10, failure="x")) is OPEN


@pytest.mark.parametrize(
    ("seconds", "share"), [(0.5, RAMP_START), (RAMP_SECONDS / 4, 0.25), (RAMP_SECONDS / 2, 0.5), (RAMP_SECONDS, 1), (3600, 1)]
)
def test_after_a_recovery_the_rate_climbs_over_a_minute(shared: Shared, seconds: float, share: float) -> None:
    shared.recovered()
    shared.tell(LEAVING, after=seconds)
    shared.breaker.tokens = 0
    shared.tell(LEAVING, after=0.001)
    assert shared.breaker.tokens == pytest.approx(RATE * 0.001 * share, rel=0.05)


@pytest.mark.parametrize("rate", [1, 100, 10_000])
def test_after_a_recovery_the_herd_is_held_back(rate: float) -> None:
    """Runs that always send what they may, a batch of 500 at most, in the first minute after a recovery."""
    shared = Shared(rate=rate).recovered()
    sent = 0
    tally = NOTHING
    for _ in range(6000):
        tally = batch(500) if shared.tell(tally, after=0.01) is CLOSED else NOTHING
        sent += tally.answered
    assert sent <= rate * RAMP_SECONDS * 0.6 + 500


def test_after_a_recovery_twenty_runs_do_not_each_take_what_is_there_for_all() -> None:
    """Each asks, sends its batch, and tallies it a second later when it asks again."""
    shared = Shared().recovered()
    sent, out = 0, [NOTHING] * 20
    for _ in range(10):
        shared.now += 1
        out = [batch(500) if shared.tell(tally) is CLOSED else NOTHING for tally in out]
        sent += sum(tally.answered for tally in out)
    allowed = sum(RATE * max(RAMP_START, second / RAMP_SECONDS) for second in range(1, 11))
    assert sent <= 3 * allowed


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 3000)), min_size=1, max_size=30))
def test_the_bucket_never_holds_more_than_a_burst(steps: list[tuple[float, int]]) -> None:
    shared = Shared()
    for after, sent in steps:
        shared.tell(Tally(answered=sent), after=after)
        assert shared.breaker.tokens <= BURST - sent


@given(st.lists(st.tuples(st.floats(0.01, 3), st.integers(0, 3000)), min_size=1, max_size=60))
def test_who_asks_before_sending_keeps_the_rate(steps: list[tuple[float, int]]) -> None:
    """One sender, who tallies what it sent before it asks again: the burst, the rate, and the last batch on top."""
    shared = Shared()
    started, sent, tally = shared.now, 0, NOTHING
    for after, most in steps:
        tally = batch(most) if shared.tell(tally, after=after) is CLOSED else NOTHING
        sent += tally.answered
    assert sent <= BURST + RATE * (shared.now - started) + 3000


tallies = st.builds(
    Tally,
    answered=st.integers(0, 100),
    failed=st.integers(0, 100),
    failure=st.just("fcm 503"),
    credentials=st.sampled_from(["", "", "", "fcm 403"]),
    pause=st.sampled_from([0.0, 0.0, 0.0, 7.0]),
    probed=st.booleans(),
)
histories = st.lists(st.tuples(st.floats(0, 40), tallies), max_size=60)


def told(history: list[tuple[float, Tally]]) -> Iterator[tuple[Shared, Tally, BreakerState]]:
    shared = Shared()
    for after, tally in history:
        yield shared, tally, shared.tell(tally, after=after)


@given(histories)
def test_it_is_never_closed_for_anyone_while_the_shared_breaker_is_open(history: list[tuple[float, Tally]]) -> None:
    for shared, _, state in told(history):
        assert state is not CLOSED or not shared.is_open
        assert state is not HALF_OPEN or shared.is_open


@given(histories)
def test_nobody_ever_sends_during_a_pause(history: list[tuple[float, Tally]]) -> None:
    for shared, _, state in told(history):
        assert state is OPEN or shared.now >= shared.breaker.paused_until


@given(histories)
def test_only_an_answered_probe_closes_the_breaker(history: list[tuple[float, Tally]]) -> None:
    was_open = False
    for shared, tally, _ in told(history):
        if was_open and not shared.is_open:
            assert tally.probed
            assert tally.answered
            assert not tally.failed
            assert not tally.credentials
        was_open = shared.is_open


@given(histories, st.floats(60, 1000))
def test_a_breaker_is_never_stuck(history: list[tuple[float, Tally]], later: float) -> None:
    shared = Shared()
    for after, tally in history:
        shared.tell(tally, after=after)
    assert shared.tell(after=later) in {CLOSED, HALF_OPEN}


@given(histories, st.floats(60, 100_000), st.floats(60, 1000))
def test_a_clock_that_was_ahead_and_is_set_back_holds_nothing_up(
    history: list[tuple[float, Tally]], ahead: float, later: float
) -> None:
    shared = Shared()
    for after, tally in history:
        shared.tell(tally, after=after)
    shared.tell(after=-ahead)
    assert shared.tell(after=later) in {CLOSED, HALF_OPEN}


@given(histories)
def test_no_number_runs_away(history: list[tuple[float, Tally]]) -> None:
    for shared, _, _ in told(history):
        breaker = shared.breaker
        assert all(isfinite(value) for value in (breaker.tokens, breaker.probe_at, breaker.window_at, breaker.paused_until))
        assert breaker.probe_at <= shared.now + PROBE_LEASE_SECONDS
