"""What Google's own SDK makes of the emulator: the proof that its answers mean what Google's mean."""

from collections.abc import Iterator
from typing import Any

import firebase_admin
import pytest
from firebase_admin import credentials, exceptions, messaging

from devstack.emulators.client import Emulator, Fault

pytestmark = pytest.mark.filterwarnings("ignore:Message.token is deprecated:DeprecationWarning")


@pytest.fixture
def app(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(emulator.ca_file))
    url = f"{emulator.base_url}/v1/projects/{{0}}/messages:send"
    monkeypatch.setattr("firebase_admin.messaging._MessagingService.FCM_URL", url)
    app = firebase_admin.initialize_app(credentials.Certificate(str(emulator.service_account_file)), name="emulated")
    yield app
    firebase_admin.delete_app(app)


def full_message(token: str) -> Any:
    """A message that uses every block, so that the SDK's encoder is held against the emulator's table."""
    return messaging.Message(
        token=token,
        data={"notification_id": "7", "type": "NEW_MESSAGE"},
        notification=messaging.Notification(title="Ann", body="Hello 👋"),
        android=messaging.AndroidConfig(
            collapse_key="n-7",
            priority="high",
            ttl=86_399.5,
            notification=messaging.AndroidNotification(
                tag="n-7",
                channel_id="chat",
                notification_count=3,
                priority="max",
                visibility="private",
                vibrate_timings_millis=[100, 50],
                light_settings=messaging.LightSettings("#aabbcc", 100, 200),
            ),
        ),
        apns=messaging.APNSConfig(
            headers={"apns-priority": "10", "apns-collapse-id": "n-7"},
            payload=messaging.APNSPayload(messaging.Aps(badge=3, sound="default", thread_id="c-1")),
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": "60"}, notification=messaging.WebpushNotification(title="Ann", tag="n-7")
        ),
        fcm_options=messaging.FCMOptions(analytics_label="chat"),
    )


def test_a_full_message_is_accepted_and_logged(app: Any, emulator: Emulator) -> None:
    name = messaging.send(full_message("device-1"), app=app)

    [accepted] = emulator.accepted()
    assert name.startswith("projects/demo-project/messages/")
    assert (accepted.provider, accepted.token, accepted.name) == ("fcm", "device-1", name)
    assert (accepted.notification_id, accepted.collapse) == ("7", "n-7")


def test_a_dry_run_is_checked_but_not_logged(app: Any, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unregistered", token="gone"))

    assert messaging.send(full_message("device-1"), dry_run=True, app=app).endswith("/fake_message_id")
    with pytest.raises(messaging.UnregisteredError):
        messaging.send(full_message("gone"), dry_run=True, app=app)
    assert list(emulator.accepted()) == []
    assert emulator.stats().count("validated") == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("unregistered", messaging.UnregisteredError),
        ("sender_mismatch", messaging.SenderIdMismatchError),
        ("quota", messaging.QuotaExceededError),
        ("third_party_auth", messaging.ThirdPartyAuthError),
        ("invalid_token", exceptions.InvalidArgumentError),
        ("apns_token_disabled", exceptions.InvalidArgumentError),
        ("message_too_big", exceptions.InvalidArgumentError),
        ("permission_denied", exceptions.PermissionDeniedError),
        ("project_not_found", exceptions.NotFoundError),
        ("bad_gateway", exceptions.UnknownError),
        ("not_json", exceptions.UnknownError),
    ],
)
def test_the_sdk_reads_each_fault_as_its_own_error(app: Any, emulator: Emulator, kind: str, error: type) -> None:
    # The SDK itself retries some statuses four times; the last answer decides.
    emulator.inject(Fault(kind=kind, token="device-1"))

    with pytest.raises(exceptions.FirebaseError) as raised:
        messaging.send(messaging.Message(token="device-1"), app=app)
    assert type(raised.value) is error
    assert list(emulator.accepted()) == []


def test_the_sdk_sees_the_retry_after_header(app: Any, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="quota", retry_after=1, times=1))

    messaging.send(messaging.Message(token="device-1"), app=app)  # the SDK waits and retries within the call

    assert emulator.stats().outcomes["fcm"] == {"quota": 1, "accepted": 1}


def test_a_cut_answer_is_a_transport_error_to_the_sdk_though_the_message_was_accepted(app: Any, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="accepted_cut", token="device-1"))

    with pytest.raises(exceptions.FirebaseError):
        messaging.send(messaging.Message(token="device-1", data={"notification_id": "9"}), app=app)
    assert {accepted.notification_id for accepted in emulator.accepted()} == {"9"}
