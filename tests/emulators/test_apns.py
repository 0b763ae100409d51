"""What APNs takes and refuses: provider tokens, headers and payloads, each refusal with Apple's status and reason."""

import time
from collections.abc import Callable
from typing import Any

import jwt
import orjson
import pytest
from pyreqwest.client import SyncClient

from devstack.emulators import apns
from devstack.emulators.answers import digest_of
from devstack.emulators.apns_answers import REFUSALS
from devstack.emulators.client import Emulator, Fault

from .senders import Reply, client_of, post

DEVICE = "ab" * 32
SendApns = Callable[..., Reply]


def provider_token(emulator: Emulator, *, issued: float = 0, kid: str = "", iss: str = "", key: str = "") -> str:
    claims = {"iss": iss or apns.TEAM_ID, "iat": int(time.time() + issued)}
    headers = {"kid": kid or apns.KEY_ID}
    return jwt.encode(claims, key or emulator.apns_key_file.read_text(), "ES256", headers)


@pytest.fixture
def send_apns(emulator: Emulator, client: SyncClient) -> SendApns:
    """Send a push: `send_apns(device, {header: value or None}, payload)`."""
    authorization = f"bearer {provider_token(emulator)}"

    def send(
        device: str = DEVICE, changes: dict[str, str | None] | None = None, payload: Any = None, body: bytes = b""
    ) -> Reply:
        usual = {"authorization": authorization, "apns-topic": apns.TOPIC, "apns-push-type": "alert"}
        headers = {name: value for name, value in {**usual, **(changes or {})}.items() if value is not None}
        content = body or orjson.dumps(payload or {"aps": {"alert": "Hello"}, "notification_id": 7})
        return post(client, f"{emulator.base_url}/3/device/{device}", headers, content)

    return send


def refused(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json()["reason"]


def test_a_push_is_accepted_with_its_id_echoed_and_logged(send_apns: SendApns, emulator: Emulator) -> None:
    apns_id = "0b1f0bd8-3b6a-4c8e-9d2e-6a7e6f0d1c2b"
    optional = {"apns-priority": "10", "apns-expiration": "0", "apns-collapse-id": "n-7", "apns-id": apns_id}

    reply = send_apns(changes=optional)

    assert (reply.status, reply.headers["apns-id"], reply.body) == (200, apns_id, b"")
    [accepted] = emulator.accepted()
    assert (accepted.provider, accepted.token, accepted.notification_id) == ("apns", DEVICE, "7")
    assert (accepted.collapse, accepted.name) == ("n-7", apns_id)


def test_the_words_of_a_push_are_logged_as_a_digest(send_apns: SendApns, emulator: Emulator) -> None:
    send_apns(payload={"aps": {"alert": {"title": "Hello", "body": "Gate 7"}}})
    send_apns(payload={"aps": {"alert": {"title": "Hello", "body": "Gate 8"}}})
    first, second = emulator.accepted()
    assert first.digest == digest_of({"title": "Hello", "body": "Gate 7"}) != second.digest


def test_an_id_is_made_up_where_none_is_given(send_apns: SendApns) -> None:
    assert len({send_apns().headers["apns-id"] for _ in range(2)}) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"apns-topic": None}, "MissingTopic"),
        ({"apns-topic": "com.example.other"}, "TopicDisallowed"),
        ({"apns-push-type": "loud"}, "InvalidPushType"),
        ({"apns-priority": "7"}, "BadPriority"),
        ({"apns-expiration": "tomorrow"}, "BadExpirationDate"),
        ({"apns-collapse-id": "x" * 65}, "BadCollapseId"),
        ({"apns-id": "1"}, "BadMessageId"),
        ({"authorization": None}, "MissingProviderToken"),
        ({"authorization": "bearer x"}, "InvalidProviderToken"),
    ],
)
def test_a_wrong_header_is_refused(send_apns: SendApns, changes: dict[str, str | None], reason: str) -> None:
    assert refused(send_apns(changes=changes)) == (REFUSALS[reason].status, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kid": "OTHERKEY01"}, "InvalidProviderToken"),
        ({"iss": "OTHERTEAM1"}, "InvalidProviderToken"),
        ({"issued": 600}, "InvalidProviderToken"),
        ({"issued": -3601}, "ExpiredProviderToken"),
    ],
)
def test_a_wrong_provider_token_is_refused(
    send_apns: SendApns, emulator: Emulator, change: dict[str, Any], reason: str
) -> None:
    authorization = f"bearer {provider_token(emulator, **change)}"

    assert refused(send_apns(changes={"authorization": authorization})) == (403, reason)


def test_a_token_signed_by_another_key_is_refused(send_apns: SendApns, emulator: Emulator) -> None:
    authorization = f"bearer {provider_token(emulator, key=emulator.vapid_key_file.read_text())}"

    assert refused(send_apns(changes={"authorization": authorization})) == (403, "InvalidProviderToken")


@pytest.mark.parametrize(("device", "reason"), [("", "MissingDeviceToken"), ("xyz" * 30, "BadDeviceToken")])
def test_a_path_without_a_device_token_is_refused(send_apns: SendApns, device: str, reason: str) -> None:
    assert refused(send_apns(device)) == (400, reason)


@pytest.mark.parametrize(
    ("push_type", "size", "status"), [("alert", 4096, 200), ("alert", 4097, 413), ("voip", 5120, 200), ("voip", 5121, 413)]
)
def test_a_payload_is_limited_by_its_push_type(send_apns: SendApns, push_type: str, size: int, status: int) -> None:
    frame = len(orjson.dumps({"aps": ""}))

    reply = send_apns(changes={"apns-push-type": push_type}, payload={"aps": "x" * (size - frame)})

    assert reply.status == status
    if status != 200:
        assert reply.json() == {"reason": "PayloadTooLarge"}


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"nonsense"])
def test_a_payload_that_is_no_object_is_refused(send_apns: SendApns, body: bytes) -> None:
    assert refused(send_apns(body=body)) == (400, "PayloadEmpty")


@pytest.mark.parametrize("reason", REFUSALS)
def test_each_reason_can_be_injected(send_apns: SendApns, emulator: Emulator, reason: str) -> None:
    emulator.inject(Fault(provider="apns", kind=reason, token="ab*"))

    assert refused(send_apns()) == (REFUSALS[reason].status, reason)
    assert send_apns("cd" * 32).status == 200


def test_a_gone_device_says_since_when(send_apns: SendApns, emulator: Emulator) -> None:
    before = time.time()
    emulator.inject(Fault(provider="apns", kind="Unregistered", token=DEVICE))

    answer = send_apns().json()
    assert answer["reason"] == "Unregistered"
    assert before - 0.01 <= answer["timestamp"] / 1000 <= time.time()


def test_http_1_is_refused(emulator: Emulator) -> None:
    with client_of(emulator, http2=False) as client:
        assert post(client, f"{emulator.base_url}/3/device/{DEVICE}", {}, b"{}").status == 505
