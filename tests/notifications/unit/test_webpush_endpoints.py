"""Where a subscription may make us send: only to a push service of WEBPUSH_HOSTS, whatever the text says."""

import asyncio
from types import SimpleNamespace
from typing import cast

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st
from pyreqwest.http import Url

from settings import Settings
from tasks.notifications.apps import DEFAULT, WebPushSection
from tasks.notifications.devices import read_devices
from tasks.notifications.outcome import Kind
from tasks.notifications.providers import webpush
from tasks.notifications.providers.transport import Answer, NoAnswerError, Transport
from tasks.notifications.providers.webpush import WebPush

from .made import json_values

HOSTS = Settings.model_fields["webpush_hosts"].default
KEYS = {
    "p256dh": "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM",
    "auth": "tBHItJI5svbpez7KI4CCXg",
}


class Asked:
    """A transport that notes what it was asked to call, as the real one would see it."""

    def __init__(self) -> None:
        self.urls: list[Url] = []

    async def post(self, url: Url | str, *_: object) -> Answer:
        self.urls.append(Url(url) if isinstance(url, str) else url)
        return Answer(201, b"")


@pytest.fixture(scope="module")
def web_push(tmp_path_factory: pytest.TempPathFactory) -> WebPush:
    key_file = tmp_path_factory.mktemp("vapid") / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    limits = {"notifications_in_flight": 1, "notifications_request_seconds": 1.0, "notifications_ping_seconds": 0}
    settings = SimpleNamespace(webpush_hosts=HOSTS, notifications_transport="own", **limits)
    section = WebPushSection(key_file=key_file, subject="mailto:ops@example.com")
    return WebPush(cast(Settings, settings), DEFAULT, section)


def send(
    web_push: WebPush, endpoint: str, keys: object = KEYS, transport: Asked | None = None
) -> tuple[Kind | None, list[Url]]:
    """Return what became of a push to the endpoint, None if the row's reader takes no such device, and what was called."""
    asked = transport or Asked()
    web_push._transport = cast(Transport, asked)
    devices = read_devices(orjson.dumps([{"provider": "webpush", "endpoint": endpoint, "keys": keys}]))
    if not devices.usable:
        return None, asked.urls
    return asyncio.run(web_push.send((b"{}", {}), devices.usable[0])).kind, asked.urls


@pytest.mark.parametrize(
    "endpoint",
    ["https://fcm.googleapis.com/fcm/send/a", "https://FCM.googleapis.com:443/a", "https://web.push.apple.com/Q?a"],
)
def test_a_push_service_is_called(web_push: WebPush, endpoint: str) -> None:
    kind, urls = send(web_push, endpoint)
    assert kind is Kind.SENT
    assert [str(url) for url in urls] == [str(Url(endpoint))]


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.5\\.push.apple.com/admin",
        "https://10.0.0.5\\@web.push.apple.com/admin",
        "https://10.0.0.5#.push.apple.com/",
        "https://10.0.0.5?.push.apple.com/",
        "https://user:secret@web.push.apple.com/",
        "https://:secret@web.push.apple.com/",
        "https://push.apple.com/",
        "https://a b.notify.windows.com/x",
        "https://fcm.googleapis.com:abc/x",
        "https://fcm.googleapis.com:81/x",
        "https://web.push.apple.com:81/x",
        "https://[::1/x",
        "http://fcm.googleapis.com/x",
        "fcm.googleapis.com/x",
        "https:///x",
    ],
)
def test_nothing_else_is_called_and_the_device_is_at_fault(web_push: WebPush, endpoint: str) -> None:
    assert send(web_push, endpoint) == (Kind.REFUSED, [])


def test_a_port_that_a_host_is_named_with_is_called(web_push: WebPush, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_push, "_hosts", ("push.example:8443",))
    assert send(web_push, "https://push.example:8443/x")[0] is Kind.SENT
    assert send(web_push, "https://push.example/x")[0] is Kind.REFUSED


PIECES = (
    "https://",
    "http://",
    "10.0.0.5",
    "web",
    *HOSTS,
    "/",
    "\\",
    "@",
    ":",
    "443",
    "#",
    "?",
    "%2e",
    ".",
    "[::1]",
    "xn--",
    " ",
)


@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=10).map("".join), st.just(KEYS) | json_values(tuple(KEYS))
)
@example("https://10.0.0.5\\.push.apple.com", KEYS)
def test_whatever_is_called_is_a_push_service(web_push: WebPush, endpoint: str, keys: object) -> None:
    kind, urls = send(web_push, endpoint, keys)
    assert kind in {None, Kind.SENT, Kind.REFUSED}
    for url in urls:
        host = url.host_str or ""
        assert (url.scheme, url.port) == ("https", None)
        assert any(host == name or (name.startswith(".") and host.endswith(name)) for name in HOSTS)


class Silent(Asked):
    """A transport that gets no answer."""

    async def post(self, *_: object) -> Answer:
        raise NoAnswerError("nobody is there")


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("https://fcm.googleapis.com/fcm/send/a", Kind.UNREACHABLE),
        ("https://nobody.notify.windows.com/a", Kind.UPSTREAM),
    ],
)
def test_a_place_where_nobody_ever_answered_opens_no_breaker(
    web_push: WebPush, endpoint: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_push, "_answered", set())
    assert send(web_push, endpoint, transport=Silent())[0] is kind
    assert send(web_push, endpoint)[0] is Kind.SENT
    assert send(web_push, endpoint, transport=Silent())[0] is Kind.UNREACHABLE


@pytest.mark.parametrize(("status", "again"), [(201, False), (401, True), (403, True), (404, False)])
def test_a_push_service_that_refuses_our_token_gets_another(
    web_push: WebPush, monkeypatch: pytest.MonkeyPatch, status: int, again: bool
) -> None:
    class Refusing(Asked):
        async def post(self, _url: Url | str, *given: object) -> Answer:
            tokens.add(cast(dict[str, str], given[0])["authorization"])
            return Answer(status, b"")

    tokens: set[str] = set()
    monkeypatch.setattr(webpush, "TOKEN_OLDEST_SECONDS", 0)
    for _ in range(2):
        send(web_push, "https://fcm.googleapis.com/fcm/send/a", transport=Refusing())
    assert len(tokens) == 1 + again
