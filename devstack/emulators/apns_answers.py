"""APNs' answers: Apple's status and reason for each refusal and each injected fault, as one table.

Source: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns.
A 410 also says since when (Unix ms) the device is gone: the moment when the rule was injected.
"""

import orjson

from devstack.emulators.answers import SINCE, TRANSPORT_FAULTS, Answer

_STATUS = {
    "BadCollapseId": 400,
    "BadDeviceToken": 400,
    "BadExpirationDate": 400,
    "BadMessageId": 400,
    "BadPriority": 400,
    "BadTopic": 400,
    "DeviceTokenNotForTopic": 400,
    "DuplicateHeaders": 400,
    "IdleTimeout": 400,
    "InvalidPushType": 400,
    "MissingDeviceToken": 400,
    "MissingTopic": 400,
    "PayloadEmpty": 400,
    "TopicDisallowed": 400,
    "BadCertificate": 403,
    "BadCertificateEnvironment": 403,
    "ExpiredProviderToken": 403,
    "Forbidden": 403,
    "InvalidProviderToken": 403,
    "MissingProviderToken": 403,
    "UnrelatedKeyIdInToken": 403,
    "BadEnvironmentKeyIdInToken": 403,
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "ExpiredToken": 410,
    "Unregistered": 410,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}
_GONE = 410


def _refusal(reason: str, status: int) -> Answer:
    dated = {"timestamp": SINCE} if status == _GONE else {}
    return Answer(reason, status, [], orjson.dumps({"reason": reason, **dated}))


REFUSALS = {reason: _refusal(reason, status) for reason, status in _STATUS.items()}
FAULTS = {**TRANSPORT_FAULTS, **REFUSALS}
ONLY_HTTP2 = Answer("http_version", 505, [("content-type", "text/plain")], b"APNs speaks HTTP/2 only\n")
