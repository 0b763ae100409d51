"""Web Push (RFC 8030) with VAPID credentials (RFC 8292) and encrypted payloads (RFC 8291)."""

import binascii
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import Any

import http_ece
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyreqwest.http import Url

from settings import Settings
from tasks.notifications.apps import App, WebPushSection, fingerprint
from tasks.notifications.devices import Device
from tasks.notifications.outcome import LONGEST_ID, Kind, Outcome, provider_words
from tasks.notifications.payload import MOST_BYTES, Push, fit_push
from tasks.notifications.providers.signed_token import SignedToken, read_key
from tasks.notifications.providers.transport import Answer, NoAnswerError, Transport, UnusableUrlError

# aes128gcm adds a header of 86 bytes, a tag of 16 and a delimiter of 1 to the text (RFC 8188).
MOST_TEXT_BYTES = MOST_BYTES - 103
TOKEN_SECONDS = 3600
# One subscription of another key is refused for ever; a new signature for each of its refusals would be in vain.
TOKEN_OLDEST_SECONDS = 60
TOKEN_LIFE_SECONDS = 12 * 3600
# Push services, by origin: a wildcard in WEBPUSH_HOSTS must not let endpoints fill the memory.
MOST_TOKENS = 1000
# What Chromium leaves in an endpoint's place for a subscription that is gone.
REMOVED = "https://permanently-removed.invalid/"
# The services' words for a subscription made under another VAPID key than ours, Apple's and FCM's, and for our token.
OF_ANOTHER_KEY = re.compile("VapidPkHashMismatch|do not correspond to the credentials")
OF_OUR_TOKEN = re.compile("UnauthorizedRegistration|BadJwtToken")
LONGEST_PAGE, LONGEST_WORDS = 2000, 120


class WebPush:
    """Sends to browser subscriptions: `token` is the endpoint, `options` holds `p256dh` and `auth`."""

    def __init__(self, settings: Settings, app: App, section: WebPushSection) -> None:
        """Read the VAPID key; raise ConfigurationError where it is unusable."""
        self.app = app
        self._key = read_key(section.key_file, app.called("webpush", "key_file"))
        public = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self._public_key = urlsafe_b64encode(public).rstrip(b"=").decode()
        self.identity = fingerprint(self._public_key)
        self._subject = section.subject
        self._hosts = settings.webpush_hosts
        self._answered: set[str] = set()
        self._token_for = lru_cache(MOST_TOKENS)(self._make_token)
        self._transport = Transport.from_settings(settings)

    def prepare(self, push: Push) -> tuple[bytes, dict[str, str]]:
        """Return the text to encrypt for each device, trimmed to fit, and the headers that go with it."""
        headers = {
            "ttl": str(push.ttl),
            "urgency": "high",
            "topic": push.collapse_key,
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
        }
        return fit_push(push, lambda push, body: orjson.dumps(_text(push, body, self.app)), MOST_TEXT_BYTES), headers

    def prepare_withdrawal(self, push: Push) -> tuple[bytes, dict[str, str]]:
        """Return a text that names what is to go, and headers for it."""
        return orjson.dumps({**push.data, "badge": push.badge}), {**self.prepare(push)[1], "urgency": "normal"}

    async def send(self, prepared: tuple[bytes, dict[str, str]], device: Device, *, dry_run: bool = False) -> Outcome:
        """POST to one subscription. Web Push cannot validate without delivering: a dry run ends before the request."""
        text, headers = prepared
        if device.token.startswith(REMOVED):
            return Outcome(Kind.DEAD, "webpush: the browser has removed the subscription")
        endpoint = self._endpoint(device.token)
        if endpoint is None:
            # The endpoint came from a browser: whoever may register one must not make us call an arbitrary host.
            return Outcome(Kind.REFUSED, "webpush: the endpoint is at no host of WEBPUSH_HOSTS")
        try:
            body = _encrypt(text, device)
        except (ValueError, binascii.Error):
            return Outcome(Kind.REFUSED, "webpush: the subscription's keys are unusable")
        if dry_run:
            return Outcome(Kind.HELD, "webpush cannot validate without delivering")
        signed = self._token_for(endpoint.origin_ascii)
        token = signed.get()
        authorization = f"vapid t={token}, k={self._public_key}"
        try:
            answer = await self._transport.post(endpoint, {**headers, "authorization": authorization}, body)
        except UnusableUrlError:
            return Outcome(Kind.REFUSED, "webpush: the endpoint is no usable URL")
        except NoAnswerError as error:
            return Outcome(self._unanswered(endpoint), f"webpush gave no answer: {error}")
        if answer.status in {401, 403}:
            signed.reject(token, oldest=TOKEN_OLDEST_SECONDS)
        if len(self._answered) < MOST_TOKENS:
            self._answered.add(endpoint.origin_ascii)
        return classify(answer)

    def show(self, prepared: tuple[bytes, dict[str, str]]) -> dict[str, Any]:
        return {"headers": prepared[1], "payload": orjson.loads(prepared[0])}

    async def warm(self) -> None:
        """Do nothing: each browser names its own push service."""

    async def close(self) -> None:
        await self._transport.close()

    def _endpoint(self, endpoint: str) -> Url | None:
        """Return an endpoint at a known push service, None for any other.

        Parsed by what makes the request: another parser may see another host in it.
        """
        try:
            url = Url(endpoint)
        except ValueError:
            return None
        host = _host(url)
        known = any(host == name or (name.startswith(".") and host.endswith(name)) for name in self._hosts)
        return url if known and url.scheme == "https" and not url.username and not url.password else None

    def _unanswered(self, endpoint: Url) -> Kind:
        """Return what silence means: where nobody ever answered, a subdomain may be the subscription's own invention.

        Counted as the provider's failure, a few such subscriptions would open the breaker for everyone, and hold it open.
        """
        return Kind.UNREACHABLE if _host(endpoint) in self._hosts or endpoint.origin_ascii in self._answered else Kind.UPSTREAM

    def _make_token(self, origin: str) -> SignedToken:
        """Return the VAPID token for a push service."""
        about = {"aud": origin, "sub": self._subject}
        return SignedToken(self._key, lambda now: {**about, "exp": now + TOKEN_LIFE_SECONDS}, seconds=TOKEN_SECONDS)


def _host(url: Url) -> str:
    """Return a URL's host, with its port if that is not 443. Where nobody listens each of a row's devices costs a dial."""
    return f"{url.host_str or ''}:{url.port}" if url.port else url.host_str or ""


def _text(push: Push, body: str, app: App) -> dict[str, Any]:
    text = {
        "title": push.title,
        "body": body,
        "tag": push.collapse_key,
        "thread": push.thread,
        "badge": push.badge,
        "silent": not push.sound,
        "data": {**push.data},
    }
    if app.templates:
        app.complete(text, "webpush", push.words(body))
    if text["silent"]:
        text.pop("vibrate", None)  # a browser refuses both
    return text


def _encrypt(text: bytes, device: Device) -> bytes:
    """Return the aes128gcm body for a subscription. Raise ValueError where its keys are unusable."""
    receiver = _decode(device.options.get("p256dh", ""))
    auth = _decode(device.options.get("auth", ""))
    if len(auth) != 16:
        raise ValueError("auth is not 16 bytes")
    sender = ec.generate_private_key(ec.SECP256R1())
    keys = {"private_key": sender, "dh": receiver, "auth_secret": auth}
    body: bytes = http_ece.encrypt(text, salt=os.urandom(16), version="aes128gcm", **keys)
    return body


def _decode(value: str) -> bytes:
    return urlsafe_b64decode(value + "=" * (-len(value) % 4))


def classify(answer: Answer) -> Outcome:
    """Return the meaning of a push service's answer, by its HTTP code, and by its word where that speaks of the VAPID key.

    401 and 403 may be one subscription's (made under another VAPID key) or ours: no attempt, no prune and no breaker.
    Source: RFC 8030, RFC 8292 and https://github.com/mastodon/mastodon/pull/11826.
    """
    said = _words(answer) if answer.status in {400, 401, 403, 413} else ""
    reason = f"webpush {answer.status} {said}".strip()
    wait = answer.wait
    match answer.status:
        case 200 | 201 | 202:
            return Outcome(Kind.SENT, provider_words(answer.name, LONGEST_ID))
        case 404 | 410:
            return Outcome(Kind.DEAD, reason)
        case 400 | 401 | 403 if OF_ANOTHER_KEY.search(said):
            return Outcome(Kind.FOREIGN, reason)
        case 400 | 401 | 403 if answer.status != 400 or OF_OUR_TOKEN.search(said):
            return Outcome(Kind.UPSTREAM, reason)
        case 400 | 413:
            return Outcome(Kind.REFUSED, reason)
        case 429:
            return Outcome(Kind.THROTTLED, reason, wait)
        case status if status >= 500:
            return Outcome(Kind.UNAVAILABLE, reason, wait)
        case _:
            return Outcome(Kind.UNKNOWN, reason, wait)


def _words(answer: Answer) -> str:
    """Return the service's own words of a refusal: Apple's reason, Mozilla's message, a text or a page, without addresses."""
    named = [answer.content.get(name) for name in ("reason", "message", "error")]
    page = re.sub(r"<[^<>]*>", " ", answer.body[:LONGEST_PAGE].decode("utf-8", "replace"))
    words = next((word for word in named if isinstance(word, str)), "" if answer.content else page)
    return provider_words(re.sub(r"\S{40,}", "…", " ".join(words.split())), LONGEST_WORDS)
