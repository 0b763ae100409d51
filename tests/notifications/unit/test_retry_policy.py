"""When a device is tried again: the ladders as Google asks for them, and what no ladder may ever do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications.outcome import FINAL, Kind, Outcome
from tasks.notifications.retry_policy import JITTER, LADDERS, LONGEST_SECONDS, counts, delay, uses_up

# Nobody was asked about the device: such outcomes are no attempts.
NOT_ATTEMPTED = sorted({Kind.CREDENTIALS, Kind.HELD, Kind.UNCONFIGURED})
ATTEMPTED = sorted(LADDERS.keys() - set(NOT_ATTEMPTED))

MINUTE, HOUR = 60, 3600

# After the first, second, third ... attempt, before jitter.
STEPS: dict[Kind, list[float]] = {
    Kind.UNAVAILABLE: [10, 20, 40, 80, 160, 320, 640, 1280, 2560, HOUR, HOUR, HOUR],
    Kind.UNREACHABLE: [10, 20, 40, 80, 160, 320, 640, 1280, 2560, HOUR, HOUR, HOUR],
    Kind.THROTTLED: [MINUTE, 120, 240, 480, 960, 1920, HOUR, HOUR, HOUR, HOUR, HOUR],
    Kind.UNKNOWN: [MINUTE, 240, 960, HOUR, HOUR],
    Kind.UPSTREAM: [300, 600, 1200, 2400, HOUR, HOUR],
}

any_kind = st.sampled_from(sorted(LADDERS))
any_attempts = st.integers(0, 100)


def spread(kind: Kind, attempts: int, retry_after: float | None = None, times: int = 200) -> list[float]:
    delays = [delay(Outcome(kind, retry_after=retry_after), attempts) for _ in range(times)]
    return [wait for wait in delays if wait is not None]


def test_every_outcome_is_either_final_or_has_a_ladder() -> None:
    assert LADDERS.keys() | FINAL == set(Kind)
    assert not LADDERS.keys() & FINAL


@pytest.mark.parametrize("kind", ATTEMPTED)
def test_the_ladder_of(kind: Kind) -> None:
    low, high = JITTER
    for attempts, step in enumerate(STEPS[kind], start=1):
        waits = spread(kind, attempts)
        assert step * low <= min(waits) <= max(waits) <= step * high


@pytest.mark.parametrize("kind", sorted(LADDERS))
def test_only_answers_about_the_device_use_it_up(kind: Kind) -> None:
    """A 429 that names the device is one; an outage, an answer that nobody can read, or a 429 for all is none."""
    about_it = kind is Kind.THROTTLED
    assert uses_up(Outcome(kind)) is about_it
    assert not uses_up(Outcome(kind, everyone=True))
    assert not uses_up(Outcome(kind, everyone=None))
    assert (delay(Outcome(kind), 12, used_up=12) is None) is about_it
    assert delay(Outcome(kind), 1000, used_up=11) is not None


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.UNREACHABLE])
def test_a_failure_is_retried_no_sooner_than_google_asks(kind: Kind) -> None:
    assert min(spread(kind, 1)) >= 10


def test_a_429_without_retry_after_waits_a_minute() -> None:
    assert min(spread(Kind.THROTTLED, 1)) >= 60


@pytest.mark.parametrize("kind", NOT_ATTEMPTED)
def test_a_fault_that_is_not_the_row_s_burns_no_attempt_and_has_no_last_one(kind: Kind) -> None:
    assert not counts(kind)
    assert delay(Outcome(kind), 10_000) is not None


@pytest.mark.parametrize("kind", [*ATTEMPTED, *sorted(FINAL)])
def test_any_other_is_an_attempt(kind: Kind) -> None:
    assert counts(kind)


def test_rows_that_failed_together_come_back_apart() -> None:
    waits = spread(Kind.UNAVAILABLE, 1, times=500)
    assert max(waits) - min(waits) > 3


@given(any_kind, any_attempts, st.floats(0, 6 * 3600))
def test_retry_after_is_a_floor(kind: Kind, attempts: int, retry_after: float) -> None:
    wait = delay(Outcome(kind, retry_after=retry_after), attempts)
    assert wait is None or wait >= retry_after


@given(any_kind, any_attempts, st.floats(0, 6 * 3600))
def test_retry_after_never_shortens_a_wait(kind: Kind, attempts: int, retry_after: float) -> None:
    wait = delay(Outcome(kind, retry_after=retry_after), attempts)
    assert wait is None or wait >= LADDERS[kind].first


@given(any_kind, any_attempts)
def test_a_wait_is_never_longer_than_the_cap_and_its_jitter(kind: Kind, attempts: int) -> None:
    wait = delay(Outcome(kind), attempts)
    assert wait is None or 0 < wait <= LONGEST_SECONDS * JITTER[1]


@given(any_kind, any_attempts)
def test_a_step_is_never_shorter_than_the_one_before(kind: Kind, attempts: int) -> None:
    low, high = JITTER
    now, later = delay(Outcome(kind), attempts), delay(Outcome(kind), attempts + 1)
    assert later is None or (now is not None and later / low >= now / high)
