"""The Retry-After header: seconds or a date (RFC 9110, 10.2.3), and whatever else a server may write there."""

import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications.providers.transport import MOST_WAIT_SECONDS, Answer


def seconds(header: str | None) -> float | None:
    return Answer(503, b"", header).wait


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The machine's time zone, which must not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


@pytest.mark.parametrize(("header", "wait"), [("0", 0), ("1", 1), ("120", 120), (" 120 ", 120), ("007", 7)])
def test_digits_are_seconds(header: str, wait: float) -> None:
    assert seconds(header) == wait


@pytest.mark.parametrize("header", ["21601", "86400", "999999999", "9" * 400])
def test_a_provider_is_taken_at_its_word_for_six_hours_at_most(header: str) -> None:
    assert seconds(header) == MOST_WAIT_SECONDS == 6 * 3600


@pytest.mark.parametrize("ahead", [90, 3600])
def test_a_date_is_counted_from_now(zone: str, ahead: int) -> None:
    assert seconds(formatdate(time.time() + ahead, usegmt=True)) == pytest.approx(ahead, abs=2)


@pytest.mark.parametrize("form", ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_the_two_old_forms_of_a_date_are_understood_in_gmt(zone: str, form: str) -> None:
    """RFC 9110, 5.6.7: a recipient must accept them, and asctime's form has no zone because it is GMT."""
    assert seconds(time.strftime(form, time.gmtime(time.time() + 90))) == pytest.approx(90, abs=2)


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2015 07:28:00 GMT", formatdate(0, usegmt=True)])
def test_a_date_in_the_past_is_no_wait(header: str) -> None:
    assert seconds(header) == 0


def test_a_date_far_ahead_is_six_hours() -> None:
    assert seconds("Fri, 31 Dec 9999 23:59:59 GMT") == MOST_WAIT_SECONDS


def test_no_header_is_no_answer() -> None:
    assert seconds(None) is None


@pytest.mark.parametrize(
    "header",
    ["", " ", "soon", "-5", "+5", "1.5", "1e3", "5s", "5, 10", "٣", "²", "0x10", "Wed, 99 Foo 2026 25:61:61 GMT", "\x00"],
    ids=repr,
)
def test_garbage_is_no_answer(header: str) -> None:
    assert seconds(header) is None


WORDS = ("Mon,", "Monday,", "01", "31", "Jan", "Feb", "2026", "0", "-1", "99999", "00:00:00", "24:00:60", "GMT", "+9999")


@given(st.text(st.characters()) | st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join))
def test_no_header_makes_it_raise_or_wait_too_long(header: str) -> None:
    wait = seconds(header)
    assert wait is None or 0 <= wait <= MOST_WAIT_SECONDS
