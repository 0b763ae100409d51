"""What APNs's answers mean: each row of the classification table, with the bodies that Apple sends.

The expected classes come from Apple's page and from what senders have seen, never from the code under test:
https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns.
"""

import time
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.emulators.answers import TRANSPORT_FAULTS
from devstack.emulators.apns_answers import REFUSALS
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers.apns import classify
from tasks.notifications.providers.transport import Answer

from .made import json_values

GONE_SINCE = 1_700_000_000_000


def refusal(status: int, reason: str, *, timestamp: int | None = None, retry_after: str | None = None) -> Answer:
    since = {} if timestamp is None else {"timestamp": timestamp}
    return Answer(status, orjson.dumps({"reason": reason, **since}), retry_after)


TABLE: dict[tuple[int, str], Kind] = {
    # The device
    (410, "Unregistered"): Kind.DEAD,
    (410, "ExpiredToken"): Kind.DEAD,
    # The device, or else the wrong environment or topic, which every good token would be refused for
    (400, "BadDeviceToken"): Kind.FOREIGN,
    (400, "DeviceTokenNotForTopic"): Kind.FOREIGN,
    # Our credentials
    (403, "ExpiredProviderToken"): Kind.CREDENTIALS,
    (403, "InvalidProviderToken"): Kind.CREDENTIALS,
    (403, "BadEnvironmentKeyIdInToken"): Kind.UPSTREAM,
    (403, "MissingProviderToken"): Kind.CREDENTIALS,
    (403, "UnrelatedKeyIdInToken"): Kind.CREDENTIALS,
    (403, "BadCertificate"): Kind.CREDENTIALS,
    (403, "BadCertificateEnvironment"): Kind.CREDENTIALS,
    (403, "Forbidden"): Kind.CREDENTIALS,
    # Our configuration
    (400, "MissingTopic"): Kind.CREDENTIALS,
    (400, "BadTopic"): Kind.CREDENTIALS,
    (400, "TopicDisallowed"): Kind.CREDENTIALS,
    # Our message
    (413, "PayloadTooLarge"): Kind.REFUSED,
    (400, "BadCollapseId"): Kind.REFUSED,
    (400, "BadExpirationDate"): Kind.REFUSED,
    (400, "BadMessageId"): Kind.REFUSED,
    (400, "BadPriority"): Kind.REFUSED,
    (400, "DuplicateHeaders"): Kind.REFUSED,
    (400, "IdleTimeout"): Kind.REFUSED,
    (400, "InvalidPushType"): Kind.REFUSED,
    (400, "MissingDeviceToken"): Kind.REFUSED,
    (400, "PayloadEmpty"): Kind.REFUSED,
    (404, "BadPath"): Kind.REFUSED,
    (405, "MethodNotAllowed"): Kind.REFUSED,
    # The service
    (429, "TooManyRequests"): Kind.THROTTLED,
    (500, "InternalServerError"): Kind.UNAVAILABLE,
    (503, "ServiceUnavailable"): Kind.UNAVAILABLE,
    (503, "Shutdown"): Kind.UNAVAILABLE,
}
OF_TOKENS = (429, "TooManyProviderTokenUpdates")


@pytest.mark.parametrize(("status", "reason"), TABLE)
def test_the_table(status: int, reason: str) -> None:
    answer = refusal(status, reason, timestamp=GONE_SINCE if status == 410 else None)
    outcome = classify(answer)
    assert outcome.kind is TABLE[status, reason]
    assert outcome.reason == f"apns {status} {reason}"


def test_200_without_a_body_is_accepted() -> None:
    assert classify(Answer(200, b"")).kind is Kind.SENT


def test_too_many_new_provider_tokens_are_no_fault_of_the_row_or_the_device() -> None:
    """It is tried again: neither class that it can be counted in is final or prunes."""
    assert classify(refusal(*OF_TOKENS)).kind in {Kind.THROTTLED, Kind.CREDENTIALS}


@pytest.mark.parametrize("reason", REFUSALS)
def test_the_emulator_s_answers_are_understood(reason: str) -> None:
    fault = REFUSALS[reason]
    if (fault.status, reason) != OF_TOKENS:
        kind = classify(Answer(fault.status, fault.body)).kind
        assert kind is TABLE[fault.status, reason]


def test_no_answer_of_the_emulator_is_left_out() -> None:
    assert {(fault.status, reason) for reason, fault in REFUSALS.items()} == {*TABLE, OF_TOKENS}


UNAVAILABLE: dict[str, Answer] = {
    "502 in HTML": Answer(502, TRANSPORT_FAULTS["bad_gateway"].body),
    "500 without a body": Answer(500, b""),
    "503 without a body": Answer(503, b""),
    "504 in HTML": Answer(504, b"<html>Gateway Timeout</html>"),
    "503 with a new reason": refusal(503, "BrandNew"),
    "500 with a reason that prunes under 410": refusal(500, "Unregistered", timestamp=GONE_SINCE),
}


@pytest.mark.parametrize("what", UNAVAILABLE)
def test_any_5xx_is_retried(what: str) -> None:
    assert classify(UNAVAILABLE[what]).kind is Kind.UNAVAILABLE


UNHEARD_OF: dict[str, Answer] = {
    "a new reason under 410": refusal(410, "BrandNew", timestamp=GONE_SINCE),
    "410 without a body": Answer(410, b""),
    "410 in HTML": Answer(410, b"<html>Unregistered</html>"),
    "410, a list": Answer(410, b'["Unregistered"]'),
    "410, half an answer": Answer(410, b'{"reason": "Unregistered"'),
    "410, a reason in other letters": refusal(410, "unregistered"),
    "410, a reason that is null": Answer(410, b'{"reason": null}'),
    "410, a reason in a list": Answer(410, b'{"reason": ["Unregistered"]}'),
    "410, a reason elsewhere": Answer(410, b'{"error": {"reason": "Unregistered"}}'),
    "410 with a 400's reason": refusal(410, "BadDeviceToken"),
    "400 without a body": Answer(400, b""),
    "400 in HTML": Answer(400, b"<html>BadDeviceToken</html>"),
    "another success": Answer(202, b""),
    "nothing to say": Answer(204, b""),
    "a redirect": Answer(302, b""),
    "a teapot": Answer(418, b""),
    "an old protocol": Answer(426, b""),
    "421, a dead token's reason": refusal(421, "Unregistered"),
}


@pytest.mark.parametrize("what", UNHEARD_OF)
def test_an_unknown_answer_is_an_error_that_prunes_nothing_and_is_retried_a_few_times(what: str) -> None:
    assert classify(UNHEARD_OF[what]).kind is Kind.UNKNOWN


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 429])
@pytest.mark.parametrize("reason", ["Unregistered", "ExpiredToken"])
def test_a_reason_of_410_prunes_under_no_other_code(status: int, reason: str) -> None:
    assert classify(refusal(status, reason, timestamp=GONE_SINCE)).kind is not Kind.DEAD


@pytest.mark.parametrize("reason", ["BadDeviceToken", "DeviceTokenNotForTopic"])
@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 413, 429])
def test_a_bad_token_prunes_under_no_code(status: int, reason: str) -> None:
    assert classify(refusal(status, reason)).kind is not Kind.DEAD


def test_a_429_in_html_is_throttled() -> None:
    assert classify(Answer(429, b"<html>Too Many Requests</html>", "30")) == Outcome(Kind.THROTTLED, "apns 429", 30)


RETRY_AFTER: dict[str, tuple[str | None, float | None]] = {
    "seconds": ("37", 37),
    "no seconds": ("0", 0),
    "a date gone by": ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    "none": (None, None),
    "a riddle": ("soon", None),
}
RETRIED = [(429, "TooManyRequests"), (500, "InternalServerError"), (503, "ServiceUnavailable"), (503, "Shutdown")]


@pytest.mark.parametrize("what", RETRY_AFTER)
@pytest.mark.parametrize(("status", "reason"), RETRIED)
def test_retry_after_is_handed_on(status: int, reason: str, what: str) -> None:
    header, seconds = RETRY_AFTER[what]
    assert classify(refusal(status, reason, retry_after=header)).retry_after == seconds


@pytest.mark.parametrize(("status", "reason"), RETRIED)
def test_a_date_in_retry_after_is_a_floor_too(status: int, reason: str) -> None:
    header = formatdate(time.time() + 120, usegmt=True)
    wait = classify(refusal(status, reason, retry_after=header)).retry_after
    assert wait == pytest.approx(120, abs=2)


def test_a_429_of_one_device_does_not_slow_all_senders_down() -> None:
    assert not classify(refusal(429, "TooManyRequests", retry_after="30")).everyone


PRUNES = {(410, "Unregistered"), (410, "ExpiredToken")}

anything = json_values(("reason", "timestamp", "error", *(reason for _, reason in TABLE)))
bodies = anything | st.fixed_dictionaries(
    {"reason": st.sampled_from(list(REFUSALS)) | anything}, optional={"timestamp": st.just(GONE_SINCE) | anything}
)
failures = (st.sampled_from(sorted({status for status, _ in TABLE})) | st.integers(100, 599)).filter(
    lambda status: status not in {200, 201, 202}
)
headers = st.none() | st.text(max_size=30) | st.sampled_from(["10", "Wed, 21 Oct 2099 07:28:00 GMT"])


@given(failures, bodies, headers)
def test_only_the_answers_of_the_table_prune_and_no_json_is_taken_for_a_success(
    status: int, body: Any, header: str | None
) -> None:
    outcome = classify(Answer(status, orjson.dumps(body), header))
    assert outcome.kind is not Kind.SENT
    reason = body.get("reason") if isinstance(body, dict) else None
    said = (status, reason if isinstance(reason, str) else "")
    assert (outcome.kind is Kind.DEAD) == (said in PRUNES)
    check_reason(outcome)


@given(failures, st.binary(max_size=60))
def test_no_bytes_make_it_raise_prune_or_are_taken_for_a_success(status: int, body: bytes) -> None:
    outcome = classify(Answer(status, body))
    assert outcome.kind not in {Kind.SENT, Kind.DEAD}
    check_reason(outcome)


def check_reason(outcome: Outcome) -> None:
    """A reason is short, says who spoke, and is one line that a terminal only shows."""
    assert outcome.reason.startswith("apns ")
    assert outcome.reason.isprintable()
    assert len(outcome.reason) <= 255


def test_a_200_with_a_page_is_no_success() -> None:
    assert classify(Answer(200, b"<html>captive portal</html>")).kind is Kind.UNKNOWN
