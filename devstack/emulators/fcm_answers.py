"""FCM v1's answers: Google's bodies as a table, for its own refusals and for injected faults.

Sources: https://firebase.google.com/docs/cloud-messaging/error-codes, and bodies that senders have published. Where
Google's wording could not be seen it is marked `assumed`; no sender should depend on the wording of any message.
"""

from typing import Any

from devstack.emulators.answers import TRANSPORT_FAULTS, Answer, json_answer
from devstack.emulators.fcm_message import Violation
from devstack.emulators.oauth import PROJECT

_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_APNS_ERROR = "type.googleapis.com/google.firebase.fcm.v1.ApnsError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"

_CREDENTIAL = (
    "Expected OAuth 2 access token, login cookie or other valid authentication credential. "
    "See https://developers.google.com/identity/sign-in/web/devconsole-project."
)


def _error(
    outcome: str,
    code: int,
    status: str,
    message: str,
    *details: dict[str, Any],
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = list(details)
    return json_answer(outcome, code, {"error": error}, headers)


def _fcm(code: str) -> dict[str, Any]:
    return {"@type": _FCM_ERROR, "errorCode": code}


def _fields(*violations: Violation) -> dict[str, Any]:
    listed = [{"field": field, "description": text} if field else {"description": text} for field, text in violations]
    return {"@type": _BAD_REQUEST, "fieldViolations": listed}


def _reason(reason: str) -> dict[str, Any]:
    metadata = {"method": "google.firebase.fcm.v1.FcmService.SendMessage", "service": "fcm.googleapis.com"}
    return {"@type": _ERROR_INFO, "reason": reason, "domain": "googleapis.com", "metadata": metadata}


def _quota(outcome: str, message: str, subject: str, description: str) -> Answer:
    violation = {"subject": subject, "description": description}
    failure = {"@type": _QUOTA_FAILURE, "violations": [violation]}
    return _error(outcome, 429, "RESOURCE_EXHAUSTED", message, _fcm("QUOTA_EXCEEDED"), failure)


def invalid_shape(violations: list[Violation]) -> Answer:
    """Given the violations of a request's JSON, return Google's 400, which lists them all."""
    text = "\n".join(violation.description for violation in violations)
    return _error("invalid_argument", 400, "INVALID_ARGUMENT", text, _fields(*violations))


def invalid_argument(message: str, field: str = "message") -> Answer:
    """Given what FCM itself (not the JSON layer before it) refuses, return the 400 that carries an FcmError."""
    violation = Violation(field, message)
    details = (_fields(violation), _fcm("INVALID_ARGUMENT"))
    return _error("invalid_argument", 400, "INVALID_ARGUMENT", message, *details)


NO_CREDENTIALS = _error(
    "unauthenticated",
    401,
    "UNAUTHENTICATED",
    f"Request is missing required authentication credential. {_CREDENTIAL}",
    _reason("CREDENTIALS_MISSING"),
    headers=(("www-authenticate", 'Bearer realm="https://accounts.google.com/"'),),
)
BAD_CREDENTIALS = _error(
    "unauthenticated",
    401,
    "UNAUTHENTICATED",
    f"Request had invalid authentication credentials. {_CREDENTIAL}",
    _reason("ACCESS_TOKEN_EXPIRED"),
    headers=(("www-authenticate", 'Bearer realm="https://accounts.google.com/", error="invalid_token"'),),
)
WRONG_PROJECT = _error("project_not_found", 404, "NOT_FOUND", "Requested entity was not found.")
# Seen since September 2026; until then it read "Android message is too big".
TOO_BIG = _error(
    "message_too_big",
    400,
    "INVALID_ARGUMENT",
    "Message is too large. The maximum is 4K (4096 bytes).",
    _fcm("INVALID_ARGUMENT"),
)
NOT_FOUND_PAGE = Answer("not_found", 404, [("content-type", "text/html; charset=UTF-8")], b"<!DOCTYPE html>404\n")

FAULTS: dict[str, Answer] = {
    **TRANSPORT_FAULTS,
    # The device
    "unregistered": _error("unregistered", 404, "NOT_FOUND", "Requested entity was not found.", _fcm("UNREGISTERED")),
    "sender_mismatch": _error("sender_mismatch", 403, "PERMISSION_DENIED", "SenderId mismatch", _fcm("SENDER_ID_MISMATCH")),
    "invalid_token": _error(
        "invalid_token",
        400,
        "INVALID_ARGUMENT",
        "The registration token is not a valid FCM registration token",
        _fcm("INVALID_ARGUMENT"),
    ),
    "apns_token_disabled": _error(
        "apns_token_disabled",
        400,
        "INVALID_ARGUMENT",
        "APNs device token is disabled.",
        _fcm("INVALID_ARGUMENT"),
        {"@type": _APNS_ERROR, "statusCode": 410, "reason": "Unregistered"},
    ),
    "apns_bad_token": _error(
        "apns_bad_token",
        400,
        "INVALID_ARGUMENT",
        "Request contains an invalid argument.",
        _fcm("INVALID_ARGUMENT"),
        {"@type": _APNS_ERROR, "statusCode": 400, "reason": "BadDeviceToken"},
    ),
    # Our message
    "invalid_argument": invalid_shape(
        [Violation("message.data[0].value", "Invalid value at 'message.data[0].value' (TYPE_STRING), 12")]
    ),
    "message_too_big": TOO_BIG,
    "message_too_big_old": invalid_argument("Android message is too big")._replace(outcome="message_too_big"),
    # Our credentials and configuration
    "unauthenticated": BAD_CREDENTIALS,
    "unauthenticated_bare": _error(
        "unauthenticated", 401, "UNAUTHENTICATED", f"Request had invalid authentication credentials. {_CREDENTIAL}"
    ),
    "third_party_auth": _error(
        "third_party_auth",
        401,
        "UNAUTHENTICATED",
        "Auth error from APNS or Web Push Service",
        _fcm("THIRD_PARTY_AUTH_ERROR"),
    ),
    "permission_denied": _error(
        "permission_denied",
        403,
        "PERMISSION_DENIED",
        f"Permission 'cloudmessaging.messages.create' denied on resource '//cloudresourcemanager.googleapis.com/"
        f"projects/{PROJECT}' (or it may not exist).",
        _reason("IAM_PERMISSION_DENIED"),
    ),
    "project_not_found": WRONG_PROJECT,
    # The service
    "quota": _quota(
        "quota",
        "Quota exceeded for quota metric 'Messages sent' and limit 'Messages sent per minute' of service 'fcm.googleapis.com'.",
        f"project:{PROJECT}",
        "Messages sent per minute",
    ),
    "device_quota": _quota(
        "device_quota", "Message rate exceeded for the target device.", "device", "Messages per device"
    ),  # assumed
    "rate": _error("rate", 429, "RESOURCE_EXHAUSTED", "Quota exceeded.", _fcm("QUOTA_EXCEEDED")),
    "internal": _error("internal", 500, "INTERNAL", "Internal error encountered.", _fcm("INTERNAL")),
    "unavailable": _error("unavailable", 503, "UNAVAILABLE", "The service is currently unavailable.", _fcm("UNAVAILABLE")),
    "unspecified": _error("unspecified", 500, "UNKNOWN", "Unknown error.", _fcm("UNSPECIFIED_ERROR")),  # assumed
    "no_name": json_answer("no_name", 200, {"error": None}),
}
