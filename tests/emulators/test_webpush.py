"""What Web Push takes and refuses: VAPID, headers and bodies; and that only what the browser can read is delivered."""

import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import http_ece
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pyreqwest.client import SyncClient

from devstack.emulators.answers import Ending
from devstack.emulators.client import Emulator, Fault
from devstack.emulators.subscriptions import WebPushSubscription, encode
from devstack.emulators.webpush_answers import FAULTS

from .senders import Reply, post

SendWebPush = Callable[..., Reply]
DAY = 24 * 3600


def decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encrypted(subscription: WebPushSubscription, payload: bytes) -> bytes:
    return http_ece.encrypt(  # type: ignore[no-any-return]
        payload,
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=decode(subscription.p256dh),
        auth_secret=decode(subscription.auth),
    )


def vapid(emulator: Emulator, pem: bytes | None = None, **changes: Any) -> str:
    key: Any = serialization.load_pem_private_key(pem or emulator.vapid_key_file.read_bytes(), password=None)
    claims = {"aud": emulator.base_url, "exp": int(time.time()) + 3600, "sub": "mailto:ops@example.com", **changes}
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    token = jwt.encode({name: value for name, value in claims.items() if value is not None}, key, "ES256")
    return f"vapid t={token}, k={encode(point)}"


@pytest.fixture
def send_web_push(emulator: Emulator, client: SyncClient) -> SendWebPush:
    """Send to subscription 0 or another: `send_web_push({header: value or None}, body=…, number=…)`."""
    authorization = vapid(emulator)

    def send(changes: dict[str, str | None] | None = None, *, body: bytes | None = None, number: int = 0) -> Reply:
        subscription = emulator.web_push_subscription(number)
        usual = {"authorization": authorization, "ttl": "60", "content-encoding": "aes128gcm"}
        headers = {name: value for name, value in {**usual, **(changes or {})}.items() if value is not None}
        content = encrypted(subscription, orjson.dumps({"notification_id": "7"})) if body is None else body
        return post(client, subscription.endpoint, headers, content)

    return send


def test_a_message_is_decrypted_by_its_browser_and_logged(send_web_push: SendWebPush, emulator: Emulator) -> None:
    reply = send_web_push({"topic": "n-7", "urgency": "high"}, number=3)

    [accepted] = emulator.accepted()
    assert (reply.status, reply.headers["location"]) == (201, accepted.name)
    assert (accepted.provider, accepted.token, accepted.notification_id) == ("webpush", "subscription-3", "7")
    assert accepted.collapse == "n-7"


def test_a_subscription_is_the_same_in_every_run(emulator: Emulator) -> None:
    elsewhere = Emulator("https://localhost:1", emulator.folder).web_push_subscription(3)

    assert elsewhere[1:] == emulator.web_push_subscription(3)[1:]
    assert elsewhere[1:] != emulator.web_push_subscription(4)[1:]


def test_what_another_browser_should_read_is_answered_as_usual_but_not_delivered(
    send_web_push: SendWebPush, emulator: Emulator
) -> None:
    for body in (encrypted(emulator.web_push_subscription(1), b"{}"), b"nonsense"):
        reply = send_web_push(body=body)
        assert (reply.status, "location" in reply.headers) == (201, True)

    assert list(emulator.accepted()) == []
    assert emulator.stats().count("undecryptable", "webpush") == 2


def test_a_message_without_a_body_needs_no_encoding(send_web_push: SendWebPush, emulator: Emulator) -> None:
    assert send_web_push({"content-encoding": None}, body=b"").status == 201
    assert [accepted.notification_id for accepted in emulator.accepted()] == [None]


@pytest.mark.parametrize(
    ("changes", "status", "errno"),
    [
        ({"ttl": None}, 400, 111),
        ({"ttl": "-1"}, 400, 112),
        ({"topic": "a topic"}, 400, 113),
        ({"topic": "x" * 33}, 400, 113),
        ({"urgency": "now"}, 400, 114),
        ({"content-encoding": "aesgcm"}, 400, 110),
        ({"authorization": None}, 401, 109),
        ({"authorization": "vapid t=a, k=b"}, 401, 109),
        ({"authorization": "Bearer x"}, 401, 109),
    ],
)
def test_a_wrong_header_is_refused(send_web_push: SendWebPush, changes: dict[str, str | None], status: int, errno: int) -> None:
    reply = send_web_push(changes)

    assert (reply.status, reply.json()["code"], reply.json()["errno"]) == (status, status, errno)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://push.example.com"},
        {"aud": None},
        {"exp": int(time.time()) - 1},
        {"exp": int(time.time()) + DAY + 3600},
        {"sub": None},
        {"sub": "ops"},
    ],
)
def test_a_wrong_claim_is_refused(send_web_push: SendWebPush, emulator: Emulator, changes: dict[str, Any]) -> None:
    assert send_web_push({"authorization": vapid(emulator, **changes)}).status == 401


def test_another_key_than_the_subscription_was_made_with_is_forbidden(send_web_push: SendWebPush, emulator: Emulator) -> None:
    other_key = emulator.apns_key_file.read_bytes()

    reply = send_web_push({"authorization": vapid(emulator, other_key)})

    assert reply.status == 403
    assert b"do not correspond to the credentials used to create the subscriptions" in reply.body


def test_a_body_is_limited_to_4096_bytes(send_web_push: SendWebPush) -> None:
    assert send_web_push(body=b"x" * 4096).status == 201
    assert send_web_push(body=b"x" * 4097).status == 413


@pytest.mark.parametrize("token", ["", "subscription-x", "subscription-01", "other"])
def test_an_endpoint_that_was_never_given_out_is_not_found(emulator: Emulator, client: SyncClient, token: str) -> None:
    reply = post(client, f"{emulator.base_url}/push/{token}", {}, b"")

    assert (reply.status, reply.json()["errno"]) == (404, 102)


@pytest.mark.parametrize("kind", [kind for kind, fault in FAULTS.items() if kind != "slow" and fault.ending is Ending.WHOLE])
def test_each_fault_can_be_injected(send_web_push: SendWebPush, emulator: Emulator, kind: str) -> None:
    emulator.inject(Fault(provider="webpush", kind=kind, token="subscription-1", retry_after=5))

    reply = send_web_push(number=1)
    assert (reply.status, reply.body, reply.headers["retry-after"]) == (FAULTS[kind].status, FAULTS[kind].body, "5")
    assert send_web_push(number=0).status == 201
