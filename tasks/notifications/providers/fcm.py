"""Firebase Cloud Messaging, HTTP v1: our own message, access tokens and transport."""

import re
from contextlib import suppress
from typing import Any

import orjson
from pyreqwest.http import Url

from settings import Settings
from tasks.notifications.apps import DEFAULT, App, FcmSection, fingerprint
from tasks.notifications.devices import Device
from tasks.notifications.outcome import LONGEST_ID, Kind, Outcome, provider_words
from tasks.notifications.payload import Push, fit_push
from tasks.notifications.providers.google_token import AccessToken, CredentialsError
from tasks.notifications.providers.transport import MOST_WAIT_SECONDS, Answer, NoAnswerError, Transport

# The answer to a string that never was a token; the same errorCode otherwise means that our payload is at fault.
NOT_A_TOKEN = "The registration token is not a valid FCM registration token"  # noqa: S105 - Google's sentence

# What a good token gets from APNs too, of another app or of the other environment than the Firebase project's APNs key is for.
OF_ANOTHER_APP = {"BadDeviceToken", "DeviceTokenNotForTopic"}
DURATION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?s")


class Fcm:
    """Sends to FCM registration tokens. One instance per process; its connection is shared by all sends."""

    def __init__(self, settings: Settings, app: App, section: FcmSection) -> None:
        """Read the credentials; raise ConfigurationError where they are unusable."""
        self.app = app
        self._token = AccessToken(section.service_account, app.called("fcm", "service_account"), section.project)
        self.identity = fingerprint(self._token.project_id)
        self._url = Url(f"{settings.fcm_base_url}/v1/projects/{self._token.project_id}/messages:send")
        self._transport = Transport.from_settings(settings)

    def prepare(self, push: Push) -> bytes:
        """Return the JSON of the message without its token and closing brace, its words trimmed to 4096 bytes."""
        return fit_push(push, lambda push, body: encode(push, body, self.app))[:-1]

    def prepare_withdrawal(self, push: Push) -> bytes:
        """Return a message of data at normal priority, for iPhones with a badge, as `prepare` does."""
        headers = {"apns-push-type": "alert", "apns-priority": "5", "apns-expiration": str(int(push.expires_at))}
        message = {
            "data": {**push.data, "badge": str(push.badge)},
            "android": {"priority": "normal", "ttl": f"{push.ttl}s"},
            "apns": {"headers": headers, "payload": {"aps": {"badge": push.badge, "content-available": 1}}},
        }
        return orjson.dumps(message)[:-1]

    async def send(self, prepared: bytes, device: Device, *, dry_run: bool = False) -> Outcome:
        """POST messages:send for one token. `dry_run` sets validate_only."""
        try:
            token = await self._token.get()
        except CredentialsError as error:
            return Outcome(Kind.CREDENTIALS, str(error))
        tail = b'},"validate_only":true}' if dry_run else b"}}"
        body = b'{"message":' + prepared + b',"token":' + orjson.dumps(device.token) + tail
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        try:
            answer = await self._transport.post(self._url, headers, body)
        except NoAnswerError as error:
            return Outcome(Kind.UNREACHABLE, f"fcm gave no answer: {error}")
        if answer.status == 401:
            self._token.reject(token)
        return classify(answer)

    def show(self, prepared: bytes) -> dict[str, Any]:
        return {"message": orjson.loads(prepared + b"}")}

    async def warm(self) -> None:
        with suppress(CredentialsError):
            await self._token.get()
        await self._transport.warm(self._url)

    async def close(self) -> None:
        await self._token.close()
        await self._transport.close()


def encode(push: Push, body: str, app: App = DEFAULT) -> bytes:
    """Return the v1 message of a push as JSON, without its target and with `body` for its body.

    https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages#resource:-message
    """
    key, ttl = push.collapse_key, push.ttl
    shown: dict[str, Any] = {"tag": key}
    aps: dict[str, Any] = {"thread-id": push.thread}
    webpush: dict[str, Any] = {"tag": key}
    android: dict[str, Any] = {"priority": "high", "ttl": f"{ttl}s"}
    message: dict[str, Any] = {
        "data": {**push.data},
        "android": android,
        "apns": {
            "headers": {"apns-collapse-id": key, "apns-expiration": str(int(push.expires_at)), "apns-priority": "10"},
            "payload": {"aps": aps},
        },
        "webpush": {"headers": {"TTL": str(ttl), "Urgency": "high", "Topic": key}, "notification": webpush},
    }
    as_data = app.android == "data"
    if as_data:
        # Without a `notification` part and a key Google does not collapse it; iPhones and browsers get the words apart.
        android["data"] = shown
        shown |= {"title": push.title, "body": body, "thread": push.thread, "silent": str(not push.sound).lower()}
        aps["alert"] = {"title": push.title, "body": body}
        webpush |= aps["alert"]
    else:
        message["notification"] = {"title": push.title, "body": body}
        android |= {"collapse_key": key, "notification": shown}
    if push.badge is not None:
        aps["badge"] = push.badge
        shown |= {"badge": str(push.badge)} if as_data else {"notification_count": push.badge}
    if app.fcm and app.fcm.channel_id:
        shown["channel_id"] = app.fcm.channel_id
    if app.templates:
        app.complete(message, "fcm", push.words(body))
    if as_data:
        shown |= message["data"]
    if push.sound:
        for part in (aps,) if as_data else (aps, shown):
            part.setdefault("sound", "default")
    else:
        for part, name in ((aps, "sound"), (shown, "sound"), (shown, "default_sound"), (webpush, "vibrate")):
            part.pop(name, None)
        webpush["silent"] = True
        if app.fcm and app.fcm.silent_channel_id:
            shown["channel_id"] = app.fcm.silent_channel_id
    return orjson.dumps(message)


def classify(answer: Answer) -> Outcome:
    """Return the meaning of FCM's answer: keyed on FcmError's errorCode, then the status, then the HTTP code.

    Source: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode and what servers have been seen to send.
    """
    parsed = answer.content
    if answer.status == 200 and isinstance(name := parsed.get("name"), str) and name:
        return Outcome(Kind.SENT, provider_words(name, LONGEST_ID))
    error = parsed.get("error")
    error = error if isinstance(error, dict) else {}
    status, text, details = error.get("status"), error.get("message"), _listed(error, "details")
    code = _detail(details, "FcmError").get("errorCode")
    apns = _detail(details, "ApnsError")
    shown = [provider_words(word) for word in (status, code, apns.get("reason")) if word]
    reason = " ".join(dict.fromkeys(["fcm", str(answer.status), *shown]))
    wait = answer.wait or _retry_delay(details)

    match answer.status, status, code:
        case 404, _, "UNREGISTERED":
            return Outcome(Kind.DEAD, reason)
        case 400, _, "INVALID_ARGUMENT" if text == NOT_A_TOKEN:
            return Outcome(Kind.DEAD, f"{reason} (not a token)")
        case 400, _, "INVALID_ARGUMENT" if apns.get("statusCode") == 410:
            return Outcome(Kind.DEAD, f"{reason} (apns 410)")
        case 403, _, "SENDER_ID_MISMATCH":
            return Outcome(Kind.FOREIGN, reason)
        case 400, _, _ if str(apns.get("reason")) in OF_ANOTHER_APP:
            return Outcome(Kind.FOREIGN, reason)
        case 401, _, "THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR":
            return Outcome(Kind.UPSTREAM, reason)
        case 429, _, _:
            return Outcome(Kind.THROTTLED, reason, wait, everyone=_means_everyone(details))
        case _, _, "INTERNAL" | "UNAVAILABLE":
            return Outcome(Kind.UNAVAILABLE, reason, wait)
        case _, _, "UNSPECIFIED_ERROR":
            return Outcome(Kind.UNKNOWN, reason, wait)
        case (401, _, _) | (403, _, None) | (404, _, None):
            # The API is disabled, the role is missing or the project id is wrong: no token's fault.
            return Outcome(Kind.CREDENTIALS, f"{reason} without an FcmError: check the project and its permissions")
        case 400 | 413, _, "INVALID_ARGUMENT" | None if status or answer.status == 413:
            fields = _fields(details)
            return Outcome(Kind.REFUSED, f"{reason} ({fields})" if fields else reason)
        case http, _, _ if http >= 500:
            return Outcome(Kind.UNAVAILABLE, reason, wait)
        case _:
            return Outcome(Kind.UNKNOWN, reason, wait)


def _listed(table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects of a list in an answer, none where it is no list."""
    found = table.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _detail(details: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the detail of a type, named as in `google.rpc.RetryInfo` or, FCM's own, as in `FcmError`."""
    name = kind if "." in kind else f"google.firebase.fcm.v1.{kind}"
    return next((detail for detail in details if detail.get("@type") == f"type.googleapis.com/{name}"), {})


def _retry_delay(details: list[dict[str, Any]]) -> float | None:
    """Return the seconds of a RetryInfo, whose Duration reads as in "3.5s"."""
    given = str(_detail(details, "google.rpc.RetryInfo").get("retryDelay"))
    return min(float(given[:-1]), MOST_WAIT_SECONDS) if DURATION.fullmatch(given) else None


def _means_everyone(details: list[dict[str, Any]]) -> bool | None:
    """Return True if a quota violation is about the project, False if about one device, None if there is none."""
    said = [
        str(v.get("subject")).lower().startswith("device") or "device" in str(v.get("description")).lower()
        for v in _listed(_detail(details, "google.rpc.QuotaFailure"), "violations")
    ]
    return not any(said) if said else None


def _fields(details: list[dict[str, Any]]) -> str:
    """Return which fields Google objects to; its message would quote their content."""
    violations = _listed(_detail(details, "google.rpc.BadRequest"), "fieldViolations")
    return provider_words(", ".join(str(v["field"]) for v in violations if v.get("field")), 80)
