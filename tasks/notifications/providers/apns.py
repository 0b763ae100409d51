"""Apple Push Notification service: token credentials, one HTTP/2 connection."""

from typing import Any
from urllib.parse import quote

import orjson

from settings import Settings
from tasks.notifications.apps import ApnsSection, App, fingerprint
from tasks.notifications.devices import Device
from tasks.notifications.outcome import LONGEST_ID, Kind, Outcome, provider_words
from tasks.notifications.payload import Push, fit_push
from tasks.notifications.providers.signed_token import SignedToken, read_key
from tasks.notifications.providers.transport import Answer, NoAnswerError, Transport

# Apple refuses tokens older than an hour and complains of new ones more often than every 20 minutes.
TOKEN_SECONDS = 45 * 60
TOKEN_OLDEST_SECONDS = 20 * 60


class Apns:
    """Sends to APNs device tokens. One instance per process."""

    def __init__(self, settings: Settings, app: App, section: ApnsSection) -> None:
        """Read the key; raise ConfigurationError where it is unusable."""
        self.app = app
        self._token = SignedToken(
            read_key(section.key_file, app.called("apns", "key_file")),
            lambda now: {"iss": section.team_id, "iat": now},
            seconds=TOKEN_SECONDS,
            headers={"kid": section.key_id},
        )
        hosts = {"production": settings.apns_base_url, "sandbox": settings.apns_sandbox_url}
        self._urls = {environment: f"{host}/3/device/" for environment, host in hosts.items()}
        self._environment = section.environment
        self._topic = section.topic
        self.identity = fingerprint(section.team_id, section.topic, section.environment)
        self._transport = Transport.from_settings(settings)

    def prepare(self, push: Push) -> tuple[bytes, dict[str, str]]:
        """Return the payload, its words trimmed to 4096 bytes, and the headers that go with it."""
        headers = {
            "apns-topic": self._topic,
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-expiration": str(int(push.expires_at)),
            "apns-collapse-id": push.collapse_key,
        }
        return fit_push(push, lambda push, body: orjson.dumps(_payload(push, body, self.app))), headers

    def prepare_withdrawal(self, push: Push) -> tuple[bytes, dict[str, str]]:
        """Return a payload without an alert, and headers for it: of type alert, or iOS would let few through."""
        payload = {"aps": {"badge": push.badge, "content-available": 1}, **push.data}
        return orjson.dumps(payload), {**self.prepare(push)[1], "apns-priority": "5"}

    async def send(self, prepared: tuple[bytes, dict[str, str]], device: Device, *, dry_run: bool = False) -> Outcome:
        """POST to one device token. APNs cannot validate without delivering: a dry run ends before the request."""
        if dry_run:
            return Outcome(Kind.HELD, "apns cannot validate without delivering")
        payload, headers = prepared
        token = self._token.get()
        environment = device.options.get("environment") or self._environment
        # What fails in the environment that a device names, and not the app, must not hold all iPhones up.
        elsewhere = environment != self._environment
        try:
            answer = await self._transport.post(
                self._urls[environment] + quote(device.token, safe=""), {**headers, "authorization": f"bearer {token}"}, payload
            )
        except NoAnswerError as error:
            return Outcome(Kind.UPSTREAM if elsewhere else Kind.UNREACHABLE, f"apns gave no answer: {error}")
        outcome = classify(answer)
        if outcome.kind is Kind.CREDENTIALS:
            self._token.reject(token, oldest=TOKEN_OLDEST_SECONDS)
        if elsewhere and (outcome.kind in {Kind.UNAVAILABLE, Kind.UNKNOWN, Kind.CREDENTIALS} or outcome.everyone):
            return outcome._replace(kind=Kind.UPSTREAM, everyone=False)
        return outcome

    def show(self, prepared: tuple[bytes, dict[str, str]]) -> dict[str, Any]:
        return {"headers": prepared[1], "payload": orjson.loads(prepared[0])}

    async def warm(self) -> None:
        await self._transport.warm(self._urls[self._environment])

    async def close(self) -> None:
        await self._transport.close()


def _payload(push: Push, body: str, app: App) -> dict[str, Any]:
    aps: dict[str, Any] = {"alert": {"title": push.title, "body": body}, "thread-id": push.thread}
    if push.badge is not None:
        aps["badge"] = push.badge
    payload = {"aps": aps, **push.data}
    if app.templates:
        app.complete(payload, "apns", push.words(body))
    if push.sound:
        aps.setdefault("sound", "default")
    else:
        aps.pop("sound", None)
    return payload


def classify(answer: Answer) -> Outcome:
    """Return the meaning of APNs's answer, keyed on the HTTP code and `reason`.

    BadDeviceToken and DeviceTokenNotForTopic also come back for every good token when the environment or topic is wrong.
    Source: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
    """
    if answer.status == 200 and not answer.body:  # Apple's has none; a page is somebody else's
        return Outcome(Kind.SENT, provider_words(answer.name, LONGEST_ID))
    named = answer.content.get("reason")
    said = provider_words(named) if isinstance(named, str) else ""
    reason = f"apns {answer.status} {said}".strip()
    wait = answer.wait
    match answer.status, said:
        case 410, "Unregistered" | "ExpiredToken":
            return Outcome(Kind.DEAD, reason)
        case 400, "BadDeviceToken" | "DeviceTokenNotForTopic":
            return Outcome(Kind.FOREIGN, reason)
        case 403, "BadEnvironmentKeyIdInToken":  # of this device's environment, which the key is not for
            return Outcome(Kind.UPSTREAM, reason)
        case (403, _) | (400, "MissingTopic" | "BadTopic" | "TopicDisallowed"):
            return Outcome(Kind.CREDENTIALS, reason)
        case 429, "TooManyProviderTokenUpdates":
            return Outcome(Kind.THROTTLED, reason, wait, everyone=True)
        case 429, _:
            return Outcome(Kind.THROTTLED, reason, wait)
        case 400 | 404 | 405 | 413, str() if said:
            return Outcome(Kind.REFUSED, reason)
        case status, _ if status >= 500:
            return Outcome(Kind.UNAVAILABLE, reason, wait)
        case _:
            return Outcome(Kind.UNKNOWN, reason, wait)
