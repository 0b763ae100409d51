"""What a Web Push service's answers mean: each row of the classification table, with the bodies that services send.

The expected classes come from the RFCs and from what senders have seen, never from the code under test: RFC 8030, RFC 8292,
https://mozilla-services.github.io/autopush-rs/errors.html and https://github.com/mastodon/mastodon/pull/11826.
"""

import time
from email.utils import formatdate

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.emulators import webpush_answers
from devstack.emulators.answers import TRANSPORT_FAULTS
from devstack.emulators.webpush_answers import FAULTS
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers.transport import Answer
from tasks.notifications.providers.webpush import classify

from .made import json_values

BODIES: dict[str, bytes] = {
    "no body": b"",
    "autopush's": FAULTS["gone"].body,
    "FCM's text": FAULTS["gone_fcm"].body,
    "Apple's": b'{"reason":"BadJwtToken"}',
    "a page": TRANSPORT_FAULTS["bad_gateway"].body,
    "bytes": b"\xff\x00\xfe",
}

TABLE: dict[int, Kind] = {
    404: Kind.DEAD,
    410: Kind.DEAD,
    413: Kind.REFUSED,
    401: Kind.UPSTREAM,
    403: Kind.UPSTREAM,
    429: Kind.THROTTLED,
    500: Kind.UNAVAILABLE,
    502: Kind.UNAVAILABLE,
    503: Kind.UNAVAILABLE,
    504: Kind.UNAVAILABLE,
    599: Kind.UNAVAILABLE,
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", TABLE)
def test_the_table_of_refusals_whatever_the_body_says(status: int, body: str) -> None:
    assert classify(Answer(status, BODIES[body])).kind is TABLE[status]


@pytest.mark.parametrize("status", [200, 201, 202])
def test_the_three_successes_are_accepted(status: int) -> None:
    assert classify(Answer(status, b"")).kind is Kind.SENT


EMULATOR: dict[str, Kind] = {
    "bad_gateway": Kind.UNAVAILABLE,
    "gone": Kind.DEAD,
    "gone_fcm": Kind.DEAD,
    "not_found": Kind.DEAD,
    "bad_request": Kind.REFUSED,
    "too_large": Kind.REFUSED,
    "unauthorized": Kind.UPSTREAM,
    "vapid_mismatch": Kind.FOREIGN,
    "vapid_mismatch_apple": Kind.FOREIGN,
    "unauthorized_registration": Kind.UPSTREAM,
    "unauthorized_registration_page": Kind.UPSTREAM,
    "bad_jwt": Kind.UPSTREAM,
    "too_many_requests": Kind.THROTTLED,
    "internal": Kind.UNAVAILABLE,
    "unavailable": Kind.UNAVAILABLE,
}
# A 200 with a page has no row of its own.
ELSEWHERE = {"not_json"}


@pytest.mark.parametrize("fault", EMULATOR)
def test_the_emulator_s_answers_are_understood(fault: str) -> None:
    assert classify(Answer(FAULTS[fault].status, FAULTS[fault].body)).kind is EMULATOR[fault]


def test_no_answer_of_the_emulator_is_left_out() -> None:
    without_answer = {name for name, fault in TRANSPORT_FAULTS.items() if fault.accepts or not fault.status}
    assert EMULATOR.keys() == FAULTS.keys() - without_answer - ELSEWHERE


@pytest.mark.parametrize("name", ["NO_TTL", "BAD_TTL", "BAD_TOPIC", "BAD_URGENCY", "BAD_ENCODING"])
def test_a_400_of_autopush_is_our_request(name: str) -> None:
    answer = getattr(webpush_answers, name)
    assert classify(Answer(answer.status, answer.body)).kind is Kind.REFUSED


@pytest.mark.parametrize("name", ["NO_AUTHORIZATION", "BAD_AUTHORIZATION"])
def test_a_refused_vapid_token_ends_no_row_and_prunes_no_subscription(name: str) -> None:
    answer = getattr(webpush_answers, name)
    assert classify(Answer(answer.status, answer.body)).kind is Kind.UPSTREAM


WORDS: dict[str, tuple[Answer, Kind, str]] = {
    "Apple's, of our token": (Answer(403, b'{"reason":"BadJwtToken"}'), Kind.UPSTREAM, "webpush 403 BadJwtToken"),
    "Apple's, of another key": (
        Answer(400, b'{"reason":"VapidPkHashMismatch"}'), Kind.FOREIGN, "webpush 400 VapidPkHashMismatch",
    ),
    "Apple's, of another key, as 403": (
        Answer(403, b'{"reason": "VapidPkHashMismatch"}'), Kind.FOREIGN, "webpush 403 VapidPkHashMismatch",
    ),
    "FCM's, of another key": (
        Answer(403, webpush_answers.KEY_MISMATCH.body), Kind.FOREIGN,
        "webpush 403 the VAPID credentials in the authorization header do not correspond",
    ),
    "FCM's, as a text": (Answer(400, b"UnauthorizedRegistration\n"), Kind.UPSTREAM, "webpush 400 UnauthorizedRegistration"),
    "FCM's, as a page": (
        Answer(400, FAULTS["unauthorized_registration_page"].body),
        Kind.UPSTREAM, "webpush 400 UnauthorizedRegistration",
    ),
    "FCM's, as JSON": (
        Answer(401, b'{"error":"UnauthorizedRegistration"}'), Kind.UPSTREAM, "webpush 401 UnauthorizedRegistration",
    ),
    "Mozilla's": (
        Answer(401, webpush_answers.BAD_AUTHORIZATION.body), Kind.UPSTREAM,
        "webpush 401 Request did not validate Invalid Authorization Header",
    ),
    "an address in it": (Answer(400, b"no good: https://a.example/" + b"x" * 40), Kind.REFUSED, "webpush 400 no good: \u2026"),
}  # fmt: skip


@pytest.mark.parametrize("whose", WORDS)
def test_a_refusal_keeps_the_service_s_own_word(whose: str) -> None:
    answer, kind, reason = WORDS[whose]
    outcome = classify(answer)
    assert outcome.kind is kind
    assert outcome.reason.startswith(reason)


UNHEARD_OF: dict[str, Answer] = {
    "nothing to say": Answer(204, b""),
    "a redirect": Answer(302, b""),
    "a redirect for good": Answer(308, b""),
    "a method not allowed": Answer(405, b""),
    "a conflict": Answer(409, b""),
    "a teapot": Answer(418, b""),
    "an old protocol": Answer(426, b""),
    "a dead subscription's text": Answer(406, FAULTS["gone_fcm"].body),
}


@pytest.mark.parametrize("what", UNHEARD_OF)
def test_an_unknown_answer_is_an_error_that_prunes_nothing_and_is_retried_a_few_times(what: str) -> None:
    assert classify(UNHEARD_OF[what]).kind is Kind.UNKNOWN


RETRY_AFTER: dict[str, tuple[str | None, float | None]] = {
    "seconds": ("37", 37),
    "no seconds": ("0", 0),
    "a date gone by": ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    "none": (None, None),
    "a riddle": ("soon", None),
}
RETRIED = ["too_many_requests", "internal", "unavailable", "bad_gateway"]


@pytest.mark.parametrize("what", RETRY_AFTER)
@pytest.mark.parametrize("fault", RETRIED)
def test_retry_after_is_handed_on(fault: str, what: str) -> None:
    header, seconds = RETRY_AFTER[what]
    assert classify(Answer(FAULTS[fault].status, FAULTS[fault].body, header)).retry_after == seconds


@pytest.mark.parametrize("fault", RETRIED)
def test_a_date_in_retry_after_is_a_floor_too(fault: str) -> None:
    header = formatdate(time.time() + 120, usegmt=True)
    wait = classify(Answer(FAULTS[fault].status, FAULTS[fault].body, header)).retry_after
    assert wait == pytest.approx(120, abs=2)


def test_a_reason_names_the_code_and_nothing_of_the_body() -> None:
    assert classify(Answer(410, FAULTS["gone_fcm"].body)).reason == "webpush 410"


anything = json_values(("code", "errno", "error", "message", "reason", "Gone", "Not Found", "No such subscription"))
payloads = anything.map(orjson.dumps) | st.binary(max_size=60) | st.sampled_from(list(BODIES.values()))
failures = (st.sampled_from([302, 400, 401, 403, 404, 410, 413, 429, 500, 503]) | st.integers(100, 599)).filter(
    lambda status: status not in {200, 201, 202}
)
headers = st.none() | st.text(max_size=30) | st.sampled_from(["10", "Wed, 21 Oct 2099 07:28:00 GMT"])


@given(failures, payloads, headers)
def test_only_404_and_410_prune_and_nothing_is_taken_for_a_success(status: int, body: bytes, header: str | None) -> None:
    outcome = classify(Answer(status, body, header))
    assert outcome.kind is not Kind.SENT
    assert (outcome.kind is Kind.DEAD) == (status in {404, 410})
    check_reason(outcome)


def check_reason(outcome: Outcome) -> None:
    """A reason is short and says who spoke."""
    assert outcome.reason.startswith("webpush ")
    assert len(outcome.reason) <= 255
