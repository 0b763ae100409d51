"""What FCM's answers mean: each row of the classification table, with the bodies that Google sends.

The expected classes come from Google's pages and from what senders have seen, never from the code under test:
https://firebase.google.com/docs/cloud-messaging/error-codes, .../reference/fcm/rest/v1/ErrorCode, .../scale-fcm.
"""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.emulators.answers import TRANSPORT_FAULTS
from devstack.emulators.fcm_answers import FAULTS
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers.fcm import classify
from tasks.notifications.providers.transport import Answer

from .made import json_values

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
APNS_ERROR = "type.googleapis.com/google.firebase.fcm.v1.ApnsError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"

NOT_A_TOKEN = "The registration token is not a valid FCM registration token"
NOT_FOUND = "Requested entity was not found."
BAD_GATEWAY = b"<!DOCTYPE html>\n<html lang=en>\n<title>Error 502 (Server Error)!!1</title>"


def fcm_error(code: str) -> dict[str, Any]:
    return {"@type": FCM_ERROR, "errorCode": code}


def error(code: int, status: str, message: str, *details: dict[str, Any]) -> Answer:
    body: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        body["details"] = list(details)
    return Answer(code, orjson.dumps({"error": body}))


def invalid_fields(*violations: dict[str, str]) -> dict[str, Any]:
    return {"@type": BAD_REQUEST, "fieldViolations": list(violations)}


def quota(subject: str, description: str, *, retry_after: str | None = None) -> Answer:
    failure = {"@type": QUOTA_FAILURE, "violations": [{"subject": subject, "description": description}]}
    answer = error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", fcm_error("QUOTA_EXCEEDED"), failure)
    return Answer(answer.status, answer.body, retry_after)


INVALID_VALUE = "Invalid value at 'message.data[0].value' (TYPE_STRING), 12"

TABLE: dict[str, tuple[Answer, Kind]] = {
    "200 with a name: the message is accepted": (
        Answer(200, b'{\n  "name": "projects/myproject-b5ae1/messages/0:1500415314455276%31bd1c9631bd1c96"\n}\n'),
        Kind.SENT,
    ),
    "400, the registration token is not one: the token is dead": (
        error(400, "INVALID_ARGUMENT", NOT_A_TOKEN, fcm_error("INVALID_ARGUMENT")),
        Kind.DEAD,
    ),
    "400 with APNs's 410: the token is dead": (
        error(
            400,
            "INVALID_ARGUMENT",
            "APNs device token is disabled.",
            fcm_error("INVALID_ARGUMENT"),
            {"@type": APNS_ERROR, "statusCode": 410, "reason": "Unregistered"},
        ),
        Kind.DEAD,
    ),
    "400 with APNs's PayloadTooLarge: our payload": (
        error(
            400,
            "INVALID_ARGUMENT",
            "Request contains an invalid argument.",
            fcm_error("INVALID_ARGUMENT"),
            {"@type": APNS_ERROR, "statusCode": 413, "reason": "PayloadTooLarge"},
        ),
        Kind.REFUSED,
    ),
    "400 with APNs's BadDeviceToken: a token of another app, or our project's APNs key": (
        error(
            400,
            "INVALID_ARGUMENT",
            "Request contains an invalid argument.",
            fcm_error("INVALID_ARGUMENT"),
            {"@type": APNS_ERROR, "statusCode": 400, "reason": "BadDeviceToken"},
        ),
        Kind.FOREIGN,
    ),
    "400 with APNs's DeviceTokenNotForTopic and nothing else": (
        error(
            400,
            "INVALID_ARGUMENT",
            "Request contains an invalid argument.",
            {"@type": APNS_ERROR, "statusCode": 400, "reason": "DeviceTokenNotForTopic"},
        ),
        Kind.FOREIGN,
    ),
    "400 from FCM, of any other wording: our payload": (
        error(400, "INVALID_ARGUMENT", "Android message is too big", fcm_error("INVALID_ARGUMENT")),
        Kind.REFUSED,
    ),
    "400 from the JSON layer, with nothing but field violations: our payload": (
        error(
            400,
            "INVALID_ARGUMENT",
            INVALID_VALUE,
            invalid_fields({"field": "message.data[0].value", "description": INVALID_VALUE}),
        ),
        Kind.REFUSED,
    ),
    "400 from FCM with field violations beside its code: our payload": (
        error(
            400,
            "INVALID_ARGUMENT",
            "Invalid TTL",
            invalid_fields({"field": "message.android.ttl", "description": "Invalid TTL"}),
            fcm_error("INVALID_ARGUMENT"),
        ),
        Kind.REFUSED,
    ),
    "401 without an FcmError: our access token": (
        error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        Kind.CREDENTIALS,
    ),
    "401 THIRD_PARTY_AUTH_ERROR: the APNs key in the Firebase project": (
        error(401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service", fcm_error("THIRD_PARTY_AUTH_ERROR")),
        Kind.UPSTREAM,
    ),
    "401 APNS_AUTH_ERROR: the same by its old name": (
        error(401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service", fcm_error("APNS_AUTH_ERROR")),
        Kind.UPSTREAM,
    ),
    "403 SENDER_ID_MISMATCH: a token of another project": (
        error(403, "PERMISSION_DENIED", "SenderId mismatch", fcm_error("SENDER_ID_MISMATCH")),
        Kind.FOREIGN,
    ),
    "403 without an FcmError: the API is disabled, or the role is missing": (
        error(
            403,
            "PERMISSION_DENIED",
            "Firebase Cloud Messaging API has not been used in project 123 before or it is disabled.",
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED", "domain": "googleapis.com"},
        ),
        Kind.CREDENTIALS,
    ),
    "404 UNREGISTERED: the token is dead": (
        error(404, "NOT_FOUND", NOT_FOUND, fcm_error("UNREGISTERED")),
        Kind.DEAD,
    ),
    "404 without an FcmError: a wrong project id": (error(404, "NOT_FOUND", NOT_FOUND), Kind.CREDENTIALS),
    "404 in HTML: a wrong address": (Answer(404, b"<!DOCTYPE html>404\n"), Kind.CREDENTIALS),
    "404 whose status says UNREGISTERED, without an FcmError: not to be relied on": (
        error(404, "UNREGISTERED", NOT_FOUND),
        Kind.CREDENTIALS,
    ),
    "429 for the project": (quota("project:chat", "Messages sent per minute"), Kind.THROTTLED),
    "429 for one device": (quota("device", "Messages per device"), Kind.THROTTLED),
    "429 without an FcmError": (error(429, "RESOURCE_EXHAUSTED", "Quota exceeded."), Kind.THROTTLED),
    "429 in HTML": (Answer(429, b"<html>Too Many Requests</html>"), Kind.THROTTLED),
    "500 INTERNAL": (error(500, "INTERNAL", "Internal error encountered.", fcm_error("INTERNAL")), Kind.UNAVAILABLE),
    "500 without an FcmError": (error(500, "INTERNAL", "Internal error encountered."), Kind.UNAVAILABLE),
    "503 UNAVAILABLE": (
        error(503, "UNAVAILABLE", "The service is currently unavailable.", fcm_error("UNAVAILABLE")),
        Kind.UNAVAILABLE,
    ),
    "502 in HTML": (Answer(502, BAD_GATEWAY), Kind.UNAVAILABLE),
    "504 without a body": (Answer(504, b""), Kind.UNAVAILABLE),
    "UNSPECIFIED_ERROR: limited retries, no prune": (
        error(500, "UNKNOWN", "Unknown error.", fcm_error("UNSPECIFIED_ERROR")),
        Kind.UNKNOWN,
    ),
}


@pytest.mark.parametrize("row", TABLE)
def test_the_table(row: str) -> None:
    answer, kind = TABLE[row]
    assert classify(answer).kind is kind


EMULATOR: dict[str, Kind] = {
    "bad_gateway": Kind.UNAVAILABLE,
    "not_json": Kind.UNKNOWN,
    "no_name": Kind.UNKNOWN,
    "unregistered": Kind.DEAD,
    "invalid_token": Kind.DEAD,
    "apns_token_disabled": Kind.DEAD,
    "sender_mismatch": Kind.FOREIGN,
    "apns_bad_token": Kind.FOREIGN,
    "rate": Kind.THROTTLED,
    "invalid_argument": Kind.REFUSED,
    "message_too_big": Kind.REFUSED,
    "message_too_big_old": Kind.REFUSED,
    "unauthenticated": Kind.CREDENTIALS,
    "unauthenticated_bare": Kind.CREDENTIALS,
    "permission_denied": Kind.CREDENTIALS,
    "project_not_found": Kind.CREDENTIALS,
    "third_party_auth": Kind.UPSTREAM,
    "quota": Kind.THROTTLED,
    "device_quota": Kind.THROTTLED,
    "internal": Kind.UNAVAILABLE,
    "unavailable": Kind.UNAVAILABLE,
    "unspecified": Kind.UNKNOWN,
}


@pytest.mark.parametrize("fault", EMULATOR)
def test_the_emulator_s_answers_are_understood(fault: str) -> None:
    assert classify(Answer(FAULTS[fault].status, FAULTS[fault].body)).kind is EMULATOR[fault]


def test_no_answer_of_the_emulator_is_left_out() -> None:
    without_answer = {name for name, fault in TRANSPORT_FAULTS.items() if fault.accepts or not fault.status}
    assert EMULATOR.keys() == FAULTS.keys() - without_answer


NEVER_ACCEPTED: dict[str, Answer] = {
    "no body": Answer(200, b""),
    "a captive portal": Answer(200, b"<html><body>Sign in to the network</body></html>"),
    "half an answer": Answer(200, b'{"name": "projects/'),
    "a list": Answer(200, b'[{"name": "projects/p/messages/1"}]'),
    "no name": Answer(200, b"{}"),
    "a name that is null": Answer(200, b'{"name": null}'),
    "a name that is a number": Answer(200, b'{"name": 1}'),
    "a name that is empty": Answer(200, b'{"name": ""}'),
    "an error in place of the name": Answer(200, b'{"error": {"code": 500, "status": "INTERNAL"}}'),
    "an error that has a name": Answer(200, b'{"error": {"code": 500, "name": "projects/p/messages/1"}}'),
    "another success": Answer(202, b'{"name": "projects/p/messages/1"}'),
    "nothing to say": Answer(204, b""),
    "a redirect": Answer(302, b""),
}


@pytest.mark.parametrize("what", NEVER_ACCEPTED)
def test_it_is_not_accepted_by(what: str) -> None:
    assert classify(NEVER_ACCEPTED[what]).kind is Kind.UNKNOWN


UNHEARD_OF: dict[str, Answer] = {
    "a new errorCode under 400": error(400, "INVALID_ARGUMENT", "?", fcm_error("BRAND_NEW")),
    "a new errorCode under 403": error(403, "PERMISSION_DENIED", "?", fcm_error("BRAND_NEW")),
    "a new errorCode under 404": error(404, "NOT_FOUND", "?", fcm_error("BRAND_NEW")),
    "UNREGISTERED under another code than 404": error(400, "INVALID_ARGUMENT", "?", fcm_error("UNREGISTERED")),
    "a 400 that is not Google's": Answer(400, b"<html>Bad Request</html>"),
    "a teapot": Answer(418, b""),
    "an old protocol": Answer(426, b""),
}


@pytest.mark.parametrize("what", UNHEARD_OF)
def test_an_unknown_answer_is_an_error_that_prunes_nothing_and_is_retried_a_few_times(what: str) -> None:
    assert classify(UNHEARD_OF[what]).kind is Kind.UNKNOWN


def test_a_body_that_quotes_the_sentence_on_dead_tokens_does_not_kill_the_device() -> None:
    """The recipient may well write that sentence: Google quotes the value that it objects to."""
    quoting = f"Invalid value at 'message.data[0].value' (TYPE_STRING), \"{NOT_A_TOKEN}\""
    answer = error(400, "INVALID_ARGUMENT", quoting, fcm_error("INVALID_ARGUMENT"))
    assert classify(answer).kind is Kind.REFUSED


def test_details_of_other_types_are_passed_over() -> None:
    details = ({"@type": RETRY_INFO, "retryDelay": "1s"}, {"errorCode": "INTERNAL"}, fcm_error("UNREGISTERED"))
    assert classify(error(404, "NOT_FOUND", NOT_FOUND, *details)).kind is Kind.DEAD


RETRY_AFTER: dict[str, tuple[Answer, float | None]] = {
    "503 with seconds": (Answer(503, TABLE["503 UNAVAILABLE"][0].body, "120"), 120),
    "500 with seconds": (Answer(500, TABLE["500 INTERNAL"][0].body, "30"), 30),
    "502 in HTML with seconds": (Answer(502, BAD_GATEWAY, "30"), 30),
    "429 with seconds": (quota("project:chat", "Messages sent per minute", retry_after="37"), 37),
    "503 without": (TABLE["503 UNAVAILABLE"][0], None),
    "503 with a riddle": (Answer(503, TABLE["503 UNAVAILABLE"][0].body, "soon"), None),
}


@pytest.mark.parametrize("what", RETRY_AFTER)
def test_retry_after_is_handed_on(what: str) -> None:
    answer, seconds = RETRY_AFTER[what]
    assert classify(answer).retry_after == seconds


SLOW_DOWN: dict[str, tuple[Answer, bool]] = {
    "the project's quota, with Retry-After": (quota("project:chat", "Messages sent per minute", retry_after="30"), True),
    "the project's quota, without Retry-After": (quota("project:chat", "Messages sent per minute"), True),
    "one device's quota": (quota("device", "Messages per device", retry_after="30"), False),
    "one device's quota, without Retry-After": (quota("device", "Messages per device"), False),
    "one device's quota, said in the description": (
        quota("projects/123", "Messages per device", retry_after="30"),
        False,
    ),
    "a project that is called after a device": (
        quota("project:device-lab", "Messages sent per minute", retry_after="30"),
        True,
    ),
}


@pytest.mark.parametrize("whose", SLOW_DOWN)
def test_a_429_slows_all_senders_down_unless_it_names_a_device(whose: str) -> None:
    answer, everyone = SLOW_DOWN[whose]
    assert classify(answer).everyone is everyone


@pytest.mark.parametrize("row", [row for row in TABLE if not row.startswith("429")])
def test_nothing_but_a_429_slows_all_senders_down(row: str) -> None:
    answer, _ = TABLE[row]
    assert not classify(Answer(answer.status, answer.body, "30")).everyone


def test_a_reason_names_the_code_the_status_and_the_errorcode() -> None:
    assert classify(TABLE["404 UNREGISTERED: the token is dead"][0]).reason == "fcm 404 NOT_FOUND UNREGISTERED"


def test_a_reason_names_the_field_and_not_what_was_in_it() -> None:
    secret = "Invalid value at 'message.notification.body' (TYPE_STRING), meet me at nine"
    answer = error(
        400, "INVALID_ARGUMENT", secret, invalid_fields({"field": "message.notification.body", "description": secret})
    )
    assert classify(answer).reason == "fcm 400 INVALID_ARGUMENT (message.notification.body)"


def test_a_reason_is_one_line_whatever_the_words_of_the_answer() -> None:
    outcome = classify(Answer(503, orjson.dumps({"error": {"status": "\x1b]0;owned\x07\n\u202e" + "x" * 100}})))
    assert outcome.reason == r"fcm 503 \x1b]0;owned\x07\n\u202e" + "x" * 16


@pytest.mark.parametrize("reason", ["BadDeviceToken", "PayloadTooLarge"])
def test_a_reason_has_apns_s_own_word(reason: str) -> None:
    answer = error(
        400, "INVALID_ARGUMENT", "", fcm_error("INVALID_ARGUMENT"), {"@type": APNS_ERROR, "statusCode": 400, "reason": reason}
    )
    assert classify(answer).reason == f"fcm 400 INVALID_ARGUMENT {reason}"


@pytest.mark.parametrize(
    ("delay", "header", "wait"),
    [
        ("30s", None, 30),
        ("3.5s", None, 3.5),
        ("30s", "90", 90),
        ("99999999s", None, 6 * 3600),
        ("soon", None, None),
        (7, None, None),
    ],
)
def test_a_retry_info_is_a_floor_as_retry_after_is(delay: Any, header: str | None, wait: float | None) -> None:
    """google.rpc.RetryInfo; its retryDelay is a protobuf Duration, in JSON a decimal number of seconds and an s."""
    answer = error(429, "RESOURCE_EXHAUSTED", "", fcm_error("QUOTA_EXCEEDED"), {"@type": RETRY_INFO, "retryDelay": delay})
    assert classify(Answer(answer.status, answer.body, header)).retry_after == wait


def test_a_violation_without_a_field_is_not_called_none() -> None:
    text = 'Invalid JSON payload received. Unknown name "x": Cannot find field.'
    assert "None" not in classify(error(400, "INVALID_ARGUMENT", text, invalid_fields({"description": text}))).reason


WORDS = (
    *("error", "code", "message", "status", "details", "@type", "errorCode", "name", "statusCode", "violations"),
    *("fieldViolations", "field", "subject", FCM_ERROR, APNS_ERROR, BAD_REQUEST, QUOTA_FAILURE),
    *("UNREGISTERED", "INVALID_ARGUMENT", "NOT_FOUND", "QUOTA_EXCEEDED", "SENDER_ID_MISMATCH", NOT_A_TOKEN),
)
anything = json_values(WORDS)
detail = anything | st.fixed_dictionaries(
    {"@type": st.sampled_from([FCM_ERROR, APNS_ERROR, BAD_REQUEST, QUOTA_FAILURE]) | anything},
    optional={"errorCode": anything, "statusCode": anything, "violations": anything, "fieldViolations": anything},
)
bodies = anything | st.fixed_dictionaries(
    {
        "error": st.fixed_dictionaries(
            {}, optional={"code": anything, "status": anything, "message": anything, "details": anything | st.lists(detail)}
        )
    },
    optional={"name": anything},
)
statuses = st.sampled_from([200, 201, 302, 400, 401, 403, 404, 413, 429, 500, 502, 503]) | st.integers(100, 599)
headers = st.none() | st.text(max_size=30) | st.sampled_from(["10", "Wed, 21 Oct 2099 07:28:00 GMT"])


@given(statuses, bodies, headers)
def test_no_json_makes_it_raise_or_takes_a_failure_for_a_success(status: int, body: Any, header: str | None) -> None:
    outcome = classify(Answer(status, orjson.dumps(body), header))
    if outcome.kind is Kind.SENT:
        assert status == 200
        assert isinstance(body.get("name"), str)
    check_reason(outcome)


@given(statuses, st.binary(max_size=60))
def test_no_bytes_make_it_raise_or_are_taken_for_a_success(status: int, body: bytes) -> None:
    outcome = classify(Answer(status, body))
    assert outcome.kind is not Kind.SENT
    check_reason(outcome)


@given(statuses, bodies)
def test_only_the_three_answers_of_the_table_prune_a_device(status: int, body: Any) -> None:
    if classify(Answer(status, orjson.dumps(body))).kind is Kind.DEAD:
        details = [detail for detail in body["error"]["details"] if isinstance(detail, dict)]
        codes = {str(detail.get("errorCode")) for detail in details if detail.get("@type") == FCM_ERROR}
        assert (status == 404 and "UNREGISTERED" in codes) or (status == 400 and "INVALID_ARGUMENT" in codes)


def check_reason(outcome: Outcome) -> None:
    """A reason is one short line that says who spoke."""
    assert outcome.kind is Kind.SENT or outcome.reason.startswith("fcm ")
    assert len(outcome.reason) <= 255
    assert outcome.reason.isprintable()
