"""`Fcm.prepare`: the JSON of a message, valid by FCM's own reference and never above its 4096 bytes."""

import itertools
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from devstack.emulators.fcm_message import violations_of
from settings import ConfigurationError, Settings
from tasks.notifications.notification import Notification
from tasks.notifications.payload import ELLIPSIS, MOST_BYTES, build_push
from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.fcm import Fcm

from .made import CLUSTERS, NOW, a_notification


def configured(service_account: Path | None) -> Settings:
    """Settings of these files, whatever the environment says."""
    values: dict[str, Any] = {
        "database_url": "mysql+pymysql://u:p@127.0.0.1/none",
        "celery_broker_url": "redis://127.0.0.1",
        "google_application_credentials": service_account,
    }
    return Settings(**values)


@pytest.fixture(scope="module")
def service_account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("google") / "account.json"
    account = {
        "type": "service_account",
        "project_id": "chat-project",
        "private_key": pem.decode(),
        "client_email": "push@chat-project.iam.gserviceaccount.com",
        "token_uri": "http://127.0.0.1:9/token",
    }
    path.write_text(json.dumps(account))
    return path


@pytest.fixture(scope="module")
def fcm(service_account: Path) -> Fcm:
    made = configured_providers(configured(service_account))["fcm"]
    assert isinstance(made, Fcm)
    return made


def prepared(fcm: Fcm, notification: Notification) -> tuple[dict[str, Any], int]:
    """The message without its target, and its size as FCM counts it."""
    part = fcm.prepare(build_push(notification, NOW))
    message = orjson.loads(part + b"}")
    return message, len(part) + 1


def test_a_prepared_message_with_its_token_is_what_the_reference_allows(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification(badge=3))
    assert violations_of({"message": {**message, "token": "phone"}}) == []


def test_a_prepared_message_has_no_target_of_its_own(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification())
    assert not {"token", "fid", "topic", "condition"} & message.keys()


def test_title_body_and_ids_are_in_the_message(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification())
    assert message["notification"] == {"title": "New message from Ana", "body": "When can you deliver?"}
    assert message["data"] == {
        "conversation_id": "5",
        "message_id": "6",
        "notification_id": "7",
        "conversation_uuid": "550e8400-e29b-41d4-a716-446655440000",
        "message_uuid": "7c9a3a0e-5f5e-4a3a-9a39-5a0c9ad1a0e6",
        "type": "MESSAGE",
    }


def test_every_platform_collapses_repeats_by_the_same_key(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification())
    android, apns, webpush = message["android"], message["apns"], message["webpush"]
    places = (
        android["collapse_key"],
        android["notification"]["tag"],
        apns["headers"]["apns-collapse-id"],
        webpush["headers"]["Topic"],
        webpush["notification"]["tag"],
    )
    assert set(places) == {"notification-7"}


def test_every_platform_drops_the_push_when_the_24_hours_end(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification(created_at=NOW - 3600))
    assert message["android"]["ttl"] == "82800s"
    assert message["apns"]["headers"]["apns-expiration"] == str(int(NOW) + 82_800)
    assert message["webpush"]["headers"]["TTL"] == "82800"


def test_a_push_is_urgent_on_every_platform(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification())
    assert message["android"]["priority"] == "high"
    assert message["apns"]["headers"]["apns-priority"] == "10"
    assert message["webpush"]["headers"]["Urgency"] == "high"


@pytest.mark.parametrize("badge", [0, 1, 4000])
def test_the_badge_is_the_number_of_unread_messages(fcm: Fcm, badge: int) -> None:
    message, _ = prepared(fcm, a_notification(badge=badge))
    assert message["apns"]["payload"]["aps"]["badge"] == badge
    assert message["android"]["notification"]["notification_count"] == badge


def test_an_unknown_badge_leaves_the_one_that_is_shown(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification(badge=None))
    assert "badge" not in message["apns"]["payload"]["aps"]


def test_a_recipient_with_sound_off_gets_none(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification(sound=False))
    assert "sound" not in message["android"]["notification"]
    assert "sound" not in message["apns"]["payload"]["aps"]
    assert message["webpush"]["notification"]["silent"] is True


BODIES = {
    **CLUSTERS,
    "right to left": "مرحبا ",
    "right to left with marks of direction": "\u202bשלום\u202c",
    "quotes and backslashes": '"\\',
    "control characters": "\x01",
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_of_64_kilobytes_becomes_a_message_that_is_small_enough(fcm: Fcm, kind: str) -> None:
    body = BODIES[kind] * (65_536 // len(BODIES[kind].encode()))
    message, size = prepared(fcm, a_notification(body=body))
    assert MOST_BYTES - 64 < size <= MOST_BYTES
    assert body.startswith(message["notification"]["body"].removesuffix(ELLIPSIS))


@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_message_ends_in_a_whole_character(fcm: Fcm, kind: str) -> None:
    message, _ = prepared(fcm, a_notification(body=CLUSTERS[kind] * 4096))
    kept = message["notification"]["body"].removesuffix(ELLIPSIS)
    assert kept == CLUSTERS[kind] * (len(kept) // len(CLUSTERS[kind]))


def test_the_longest_title_leaves_room_for_the_body(fcm: Fcm) -> None:
    message, size = prepared(fcm, a_notification(title="🚚" * 100, body="🚚" * 4000, id=2**63 - 1, badge=2**31))
    assert size <= MOST_BYTES
    assert len(message["notification"]["body"]) > 500


def test_a_title_that_leaves_no_room_is_left_to_fcm_s_refusal(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification(title="x" * 5000))
    assert message["notification"]["body"] == ""


def test_an_empty_title_and_body_are_no_fault(fcm: Fcm) -> None:
    message, _ = prepared(fcm, a_notification(title="", body=""))
    assert violations_of({"message": {**message, "token": "phone"}}) == []


any_text = st.text(st.characters(codec="utf-8"), max_size=400) | st.builds(
    lambda parts, times: "".join(itertools.islice(itertools.cycle(parts), times)),
    st.lists(
        st.sampled_from([*BODIES.values(), "\u200d", "\ufe0f", "\u0300", "🏽", "🇸", "\x00", "\u2028"]), min_size=1, max_size=6
    ),
    st.integers(0, 5000),
)


@given(body=any_text, title=st.text(st.characters(codec="utf-8"), max_size=100))
def test_any_text_becomes_a_message_of_at_most_4096_bytes(fcm: Fcm, body: str, title: str) -> None:
    message, size = prepared(fcm, a_notification(title=title, body=body))
    sent = message["notification"]["body"]
    assert size <= MOST_BYTES
    assert message["notification"]["title"] == title
    assert sent in (body, "") or (sent.endswith(ELLIPSIS) and body.startswith(sent[:-1]))


@given(ttl_from=st.floats(0, 100_000), number=st.integers(1, 2**63 - 1))
def test_any_row_becomes_a_message_that_the_reference_allows(fcm: Fcm, ttl_from: float, number: int) -> None:
    notification = a_notification(id=number, message_id=number, conversation_id=number, created_at=NOW - ttl_from)
    message, _ = prepared(fcm, notification)
    assert violations_of({"message": {**message, "token": "phone"}}) == []


def test_missing_credentials_are_named_by_their_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"^GOOGLE_APPLICATION_CREDENTIALS is not set; "):
        configured_providers(configured(None))


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"type": "service_account"}', "\x00"], ids=repr)
def test_a_credentials_file_that_is_none_is_named_by_its_variable(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "account.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"^GOOGLE_APPLICATION_CREDENTIALS names an unusable file: "):
        configured_providers(configured(path))
