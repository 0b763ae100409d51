"""What FCM refuses before it looks at the device: bad projects, shapes and sizes, each with Google's body."""

from typing import Any

import pytest

from devstack.emulators.client import Emulator

from .senders import Reply, Send

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


def error_of(reply: Reply) -> dict[str, Any]:
    error: dict[str, Any] = reply.json()["error"]
    assert reply.status == error["code"]
    return error


def violations_of(reply: Reply) -> list[dict[str, str]]:
    [violations] = [detail["fieldViolations"] for detail in error_of(reply)["details"] if detail["@type"] == BAD_REQUEST]
    assert error_of(reply)["status"] == "INVALID_ARGUMENT"
    return list(violations)


def test_a_data_value_that_is_no_string_is_named_as_google_names_it(send: Send) -> None:
    refused = send({"token": "device", "data": {"count": 12}})

    description = "Invalid value at 'message.data[0].value' (TYPE_STRING), 12"
    assert error_of(refused) == {
        "code": 400,
        "message": description,
        "status": "INVALID_ARGUMENT",
        "details": [
            {
                "@type": BAD_REQUEST,
                "fieldViolations": [{"field": "message.data[0].value", "description": description}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"notification": "hello"}, "message.notification"),
        ({"notification": {"title": 1}}, "message.notification.title"),
        ({"notification": {"subtitle": "x"}}, "message.notification"),
        ({"priority": "high"}, "message"),
        ({"android": {"ttl": "60"}}, "message.android.ttl"),
        ({"android": {"ttl": 60}}, "message.android.ttl"),
        ({"android": {"priority": "urgent"}}, "message.android.priority"),
        ({"android": {"notification": {"notification_count": 1.5}}}, "message.android.notification.notification_count"),
        ({"android": {"notification": {"sticky": "yes"}}}, "message.android.notification.sticky"),
        ({"android": {"notification": {"body_loc_args": [1]}}}, "message.android.notification.body_loc_args[0]"),
        ({"apns": {"headers": {"apns-priority": 10}}}, "message.apns.headers[0].value"),
        ({"apns": {"payload": []}}, "message.apns.payload"),
        ({"webpush": {"notification": 1}}, "message.webpush.notification"),
        ({"webpush": {"fcm_options": {"link": 1}}}, "message.webpush.fcm_options.link"),
    ],
)
def test_each_block_is_checked_against_the_reference(send: Send, message: dict[str, Any], field: str) -> None:
    assert [violation["field"] for violation in violations_of(send({"token": "device", **message}))] == [field]


def test_all_violations_are_reported_at_once(send: Send) -> None:
    refused = send({"token": 1, "data": {"a": "b", "c": None}})

    fields = [violation["field"] for violation in violations_of(refused)]
    assert fields == ["message.token", "message.data[1].value"]


def test_both_spellings_of_a_field_and_any_case_of_an_enum_are_taken(send: Send, emulator: Emulator) -> None:
    for android in ({"collapse_key": "k", "priority": "high"}, {"collapseKey": "k", "priority": "HIGH", "ttl": None}):
        assert send({"token": "device", "android": android}).status == 200
    assert [accepted.collapse for accepted in emulator.accepted()] == ["k", "k"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"message": "\xff"}'])
def test_a_body_that_is_no_request_is_refused(send: Send, body: bytes) -> None:
    assert violations_of(send(body=body))


def test_a_message_without_a_target_is_refused_with_an_fcm_error(send: Send) -> None:
    error = error_of(send({"data": {"a": "b"}}))

    assert error["message"] == "Recipient of the message is not set."
    assert {"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"} in error["details"]


def test_a_message_with_two_targets_is_refused(send: Send) -> None:
    [violation] = violations_of(send({"token": "device", "topic": "news"}))
    assert "oneof field 'target' is already set" in violation["description"]


@pytest.mark.parametrize("key", ["from", "message_type", "google.x", "gcm.y"])
def test_reserved_data_keys_are_refused(send: Send, key: str) -> None:
    assert error_of(send({"token": "device", "data": {key: "x"}}))["message"] == f"Invalid data payload key: {key}"


@pytest.mark.parametrize(("ttl", "status"), [("0s", 200), ("2419200s", 200), ("2419201s", 400), ("-1s", 400)])
def test_the_time_to_live_is_at_most_four_weeks(send: Send, ttl: str, status: int) -> None:
    assert send({"token": "device", "android": {"ttl": ttl}}).status == status


@pytest.mark.parametrize(("letter", "over", "status"), [("x", 0, 200), ("x", 1, 400), ("é", 0, 200), ("é", 1, 400)])
def test_a_message_is_limited_to_4096_bytes_without_its_target(send: Send, letter: str, over: int, status: int) -> None:
    room = 4096 - len('{"data":{"k":""}}')
    filling = letter * (room // len(letter.encode()) + over)

    reply = send({"token": "d" * 300, "data": {"k": filling}})

    assert reply.status == status
    if status != 200:
        assert error_of(reply)["details"] == [{"@type": FCM_ERROR, "errorCode": "INVALID_ARGUMENT"}]


def test_another_project_is_not_found_without_an_fcm_error(send: Send) -> None:
    assert error_of(send({"token": "device"}, project="other")) == {
        "code": 404,
        "message": "Requested entity was not found.",
        "status": "NOT_FOUND",
    }


def test_nothing_refused_is_logged(send: Send, emulator: Emulator) -> None:
    send({"token": 1})
    send({"token": "device"}, project="other")

    assert list(emulator.accepted()) == []
    assert emulator.stats().outcomes["fcm"] == {"invalid_argument": 1, "project_not_found": 1}
