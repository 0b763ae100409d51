"""The answers of a Web Push service: the bodies of Mozilla's autopush, and of FCM's and Apple's services where they differ.

Sources: https://mozilla-services.github.io/autopush-rs/errors.html; the others' texts as senders have published them.
"""

from http import HTTPStatus

from devstack.emulators.answers import TRANSPORT_FAULTS, Answer, json_answer

_MORE_INFO = "http://autopush.readthedocs.io/en/latest/http.html#error-codes"
_TEXT = [("content-type", "text/plain; charset=UTF-8")]


def autopush(outcome: str, status: int, errno: int, message: str) -> Answer:
    """Given the parts, return a refusal in autopush's form."""
    phrase = HTTPStatus(status).phrase
    body = {"code": status, "errno": errno, "error": phrase, "message": message, "more_info": _MORE_INFO}
    headers = [("cache-control", "max-age=86400")] if status == HTTPStatus.GONE else []
    return json_answer(outcome, status, body, headers)


def _text(outcome: str, status: int, text: str) -> Answer:
    return Answer(outcome, status, _TEXT, f"{text}\n".encode())


_MISMATCH = (
    "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions."
)

NOT_FOUND = autopush("not_found", 404, 102, "Invalid token")
NO_AUTHORIZATION = autopush("unauthorized", 401, 109, "Missing Authorization Header")
BAD_AUTHORIZATION = autopush("unauthorized", 401, 109, "Request did not validate Invalid Authorization Header")
KEY_MISMATCH = _text("vapid_mismatch", 403, _MISMATCH)
NO_TTL = autopush("bad_request", 400, 111, "Missing TTL value")
BAD_TTL = autopush("bad_request", 400, 112, "Invalid TTL header value")
BAD_TOPIC = autopush("bad_request", 400, 113, "Invalid Topic header value")
BAD_URGENCY = autopush("bad_request", 400, 114, "Invalid Urgency header value")  # errno assumed
BAD_ENCODING = autopush("bad_request", 400, 110, "Unknown Content-Encoding header")
TOO_LARGE = autopush("too_large", 413, 104, "Data payload too large")

FAULTS = {
    **TRANSPORT_FAULTS,
    # The device
    "gone": autopush("gone", 410, 106, "No such subscription"),
    "gone_fcm": _text("gone", 410, "push subscription has unsubscribed or expired."),
    "not_found": NOT_FOUND,
    # Our message
    "bad_request": BAD_ENCODING,
    "too_large": TOO_LARGE,
    # Our credentials
    "unauthorized": BAD_AUTHORIZATION,
    "unauthorized_registration": _text("unauthorized_registration", 400, "UnauthorizedRegistration"),
    "unauthorized_registration_page": Answer(
        "unauthorized_registration",
        400,
        [("content-type", "text/html; charset=UTF-8")],
        b"<HTML>\n<HEAD>\n<TITLE>UnauthorizedRegistration</TITLE>\n</HEAD>\n<BODY>\n<H1>UnauthorizedRegistration</H1>\n"
        b"<H2>Error 400</H2>\n</BODY>\n</HTML>\n",
    ),
    "vapid_mismatch": KEY_MISMATCH,
    "vapid_mismatch_apple": json_answer("vapid_mismatch", 400, {"reason": "VapidPkHashMismatch"}),
    "bad_jwt": json_answer("bad_jwt", 403, {"reason": "BadJwtToken"}),
    # The service
    "too_many_requests": autopush("too_many_requests", 429, 201, "Too many requests"),
    "internal": autopush("internal", 500, 999, "Unknown error"),
    "unavailable": autopush("unavailable", 503, 201, "Service temporarily unavailable, use exponential back-off"),
}
