"""APNs and Web Push beside FCM, against their emulators."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.emulators.client import Emulator, Fault
from devstack.emulators.oauth import ensure_service_account
from devstack.folder import PROJECT
from devstack.ports import free_port
from settings import get_settings
from tasks.notifications import run
from tasks.notifications.providers import google_token
from tasks.notifications.providers.http2 import Origin
from tests.notifications.conftest import Accepted, Chat, forget_process
from tests.processes import wait_until
from tests.trickle import trickling

IPHONE = "ab" * 32
FORGET_DEAD = re.search(r"```sql\n(DELETE FROM worker_dead_devices.*?;)", (PROJECT / "docs/api.md").read_text(), re.DOTALL)[1]  # type: ignore[index]
BROKEN = "cd" * 32


@pytest.fixture(autouse=True)
def all_providers(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Configure all three providers for one test, as the environment of a worker would."""
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    forget_process()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()
    forget_process()


def iphone(token: str = IPHONE) -> dict[str, str]:
    return {"provider": "apns", "token": token}


def browser(emulator: Emulator, number: int = 1) -> dict[str, object]:
    subscription = emulator.web_push_subscription(number)
    return {
        "provider": "webpush",
        "endpoint": subscription.endpoint,
        "keys": {"p256dh": subscription.p256dh, "auth": subscription.auth},
    }


def test_one_row_reaches_a_phone_an_iphone_and_a_browser(api: Chat, emulator: Emulator) -> None:
    row = api.notify("phone", iphone(), browser(emulator))
    run.drain()
    assert api.status(row) == ("SENT", 1, None)
    messages = {message.provider: message for message in emulator.accepted()}
    assert set(messages) == {"fcm", "apns", "webpush"}
    assert {message.notification_id for message in messages.values()} == {str(row)}
    assert {message.collapse for message in messages.values()} == {f"notification-{row}"}


def test_a_warm_process_asks_for_no_token_and_no_connection_at_its_first_drain(
    api: Chat, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_process()
    run.warm()
    assert emulator.stats().requests("oauth") == 1

    async def never(_: Origin) -> None:
        pytest.fail("it dialled again")

    monkeypatch.setattr(Origin, "_dial", never)
    row = api.notify("phone", iphone())
    run.drain()
    assert api.status(row) == ("SENT", 1, None)
    assert emulator.stats().requests("oauth") == 1


def test_browsers_that_are_silent_hold_no_phone_up(api: Chat, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFICATIONS_IN_FLIGHT", "2")
    monkeypatch.setenv("NOTIFICATIONS_REQUEST_SECONDS", "8")
    get_settings.cache_clear()
    forget_process()
    emulator.inject(Fault(provider="webpush", kind="slow", latency=10))
    api.notify(browser(emulator, 1), browser(emulator, 2), "beside")
    drain = threading.Thread(target=run.drain)
    drain.start()
    wait_until(lambda: any(emulator.accepted()) and emulator.stats().in_flight == 2, "the browsers were asked")
    row = api.notify("behind")
    wait_until(lambda: api.status(row)[0] == "SENT", "the phone's row was sent")
    assert emulator.stats().in_flight == 2
    drain.join()
    wait_until(lambda: emulator.stats().in_flight == 0, "no later test counts what is still in flight")


def test_a_device_of_the_sandbox_does_not_open_the_breaker_of_all_iphones(
    api: Chat, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APNS_SANDBOX_URL", f"https://127.0.0.1:{free_port()}")
    get_settings.cache_clear()
    forget_process()
    row = api.notify(*({**iphone(f"{number:064x}"), "environment": "sandbox"} for number in range(30)))
    run.drain()
    assert api.status(row)[0] == "FAILED"
    assert [(each["failed_in_a_row"], each["failed"]) for each in api.rows("SELECT * FROM worker_providers")] == [(0, 0)] * 3


@pytest.mark.parametrize("kind", ["InvalidProviderToken", "TooManyProviderTokenUpdates", "not_json"])
def test_what_the_sandbox_says_of_us_holds_no_other_iphone(
    api: Chat, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("APNS_SANDBOX_URL", emulator.environment["APNS_BASE_URL"])
    get_settings.cache_clear()
    forget_process()
    emulator.inject(Fault(provider="apns", kind=kind, token=BROKEN))
    tested = [api.notify({**iphone(BROKEN), "environment": "sandbox"}) for _ in range(6)]
    run.drain()
    row = api.notify(iphone())
    run.drain()
    assert api.status(row) == ("SENT", 1, None)
    assert {api.status(row)[0] for row in tested} == {"FAILED"}


def test_a_long_body_fits_every_provider(api: Chat, emulator: Emulator) -> None:
    row = api.notify("phone", iphone(), browser(emulator), body="👩🏽‍🚒" * 3000)
    run.drain()
    assert api.status(row) == ("SENT", 1, None)


def test_dead_devices_of_every_provider_are_handed_to_the_api(api: Chat, emulator: Emulator) -> None:
    emulator.inject(
        Fault(provider="fcm", kind="unregistered", token="old-phone"),
        Fault(provider="apns", kind="Unregistered"),
        Fault(provider="webpush", kind="gone"),
    )
    row = api.notify("old-phone", iphone(), browser(emulator), "phone")
    run.drain()
    status, is_sent, why = api.status(row)
    assert (status, is_sent) == ("SENT", 1)
    assert why is not None
    assert "dead (apns 410 Unregistered)" in why
    dead = api.rows("SELECT provider, token, recipient_id FROM worker_dead_devices ORDER BY provider")
    assert [(d["provider"], d["recipient_id"]) for d in dead] == [("apns", 2), ("fcm", 2), ("webpush", 2)]
    assert dead[1]["token"] == "old-phone"


def test_a_dead_device_is_not_tried_again_until_the_api_registers_it(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    emulator.inject(Fault(kind="unregistered", token="phone", times=1))
    api.notify("phone")
    run.drain()
    second = api.notify("phone")
    run.drain()
    assert emulator.stats().requests() == 1
    assert "found dead before" in (api.status(second)[2] or "")
    api.execute("DELETE FROM worker_dead_devices")
    third = api.notify("phone")
    run.drain()
    assert accepted() == [(str(third), "phone")]


def test_an_iphone_is_one_device_in_any_spelling(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    row = api.notify(iphone("0a1b" * 16), iphone("0A1B" * 16), iphone(f"<{'0A1b ' * 16}>"))
    run.drain()
    assert accepted() == [(str(row), "0a1b" * 16)]
    emulator.inject(Fault(provider="apns", kind="Unregistered"))
    api.notify(iphone("0A1B" * 16))
    run.drain()
    later = api.notify(iphone("0a1b" * 16))
    run.drain()
    assert "found dead before" in (api.status(later)[2] or "")
    assert emulator.stats().requests("apns") == 2
    api.execute(FORGET_DEAD, provider="apns", token="0A1B" * 16)
    assert api.rows("SELECT * FROM worker_dead_devices") == []


def test_what_is_no_fcm_token_is_never_posted_to_fcm_and_the_row_says_what_it_is(
    api: Chat, emulator: Emulator, accepted: Accepted
) -> None:
    subscription = {**browser(emulator)}
    del subscription["provider"]
    row = api.notify(
        json.dumps(subscription),
        IPHONE,
        "ExponentPushToken[x]",
        "https://web.push.apple.com/x",
        {"provider": "FCM", "token": "phone"},
    )
    run.drain()
    status, _, why = api.status(row)
    assert status == "SENT"
    for words in ("Expo's own service", "an APNs token", "a Web Push endpoint"):
        assert words in (why or "")
    assert emulator.stats().requests("fcm") == 1
    assert {message.provider for message in emulator.accepted()} == {"fcm", "webpush"}


def test_a_token_of_another_app_waits_until_the_provider_accepted_something_and_is_never_pruned(
    api: Chat, emulator: Emulator
) -> None:
    emulator.inject(
        Fault(provider="apns", kind="BadDeviceToken", token=BROKEN),
        Fault(kind="apns_bad_token", token="an-iphone"),
    )
    [of_another_key] = emulator.inject(Fault(provider="webpush", kind="vapid_mismatch_apple"))
    foreign = (iphone(BROKEN), "an-iphone", browser(emulator))
    rows = [api.notify(device) for device in foreign]
    run.drain()
    for row, word in zip(rows, ("BadDeviceToken", "BadDeviceToken", "VapidPkHashMismatch"), strict=True):
        status, _, why = api.status(row)
        assert status == "FAILED"
        assert word in (why or "")
        assert "next try" in (why or "")
    emulator.clear(of_another_key)
    api.notify(iphone(), "phone", browser(emulator, 2))
    run.drain()
    emulator.inject(Fault(provider="webpush", kind="vapid_mismatch"))
    forget_process()  # another process knows it too
    rows = [api.notify(device) for device in foreign]
    run.drain()
    assert {api.status(row)[0] for row in rows} == {"BOUNCED"}
    assert all("1 of 1 foreign" in (api.status(row)[2] or "") for row in rows)
    assert api.rows("SELECT * FROM worker_dead_devices") == []


def test_a_subscription_that_the_browser_has_removed_is_dead(api: Chat, emulator: Emulator) -> None:
    row = api.notify({**browser(emulator), "endpoint": "https://permanently-removed.invalid/fcm/send/fgr7FAJdyMU:APA91bEq"})
    run.drain()
    assert "1 of 1 dead" in (api.status(row)[2] or "")
    assert len(api.rows("SELECT * FROM worker_dead_devices")) == 1


def test_429s_of_one_recipient_s_devices_wait_alone_and_three_recipients_within_seconds_hold_all(
    api: Chat, emulator: Emulator
) -> None:
    for name in ("noisy", "loud", "shrill"):
        emulator.inject(Fault(kind="rate", token=name, retry_after=7200))
    noisy = [api.notify("noisy", "loud", "shrill") for _ in range(4)]
    quiet = api.notify("phone")
    run.drain()
    assert api.status(quiet) == ("SENT", 1, None)
    assert {api.status(row)[0] for row in noisy} == {"FAILED"}
    api.execute("UPDATE worker_providers SET window_at = window_at - INTERVAL 11 SECOND")
    emulator.inject(Fault(kind="rate"))
    for recipient in (3, 4, 5):
        api.insert("users", id=recipient, first_name="Sam", last_name="Lee")
        api.notify("a", recipient_id=recipient)
        run.drain()
    emulator.clear()
    held = api.notify("another")
    asked = emulator.stats().requests()
    run.drain()
    assert "fcm is held" in (api.status(held)[2] or "")
    assert emulator.stats().requests() == asked
    api.let_pass(61)
    run.drain()
    assert api.status(held) == ("SENT", 1, None)


def test_an_outage_of_one_provider_does_not_delay_the_others(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(provider="apns", kind="InvalidProviderToken"))
    rows = [api.notify(iphone(), "phone") for _ in range(5)]
    run.drain()
    for row in rows:
        status, is_sent, why = api.status(row)
        assert (status, is_sent) == ("FAILED", 1)
        assert why is not None
        assert "InvalidProviderToken" in why
    assert {message.provider for message in emulator.accepted()} == {"fcm"}
    waiting = api.rows("SELECT DISTINCT waiting_on FROM worker_deliveries")
    assert [row["waiting_on"] for row in waiting] == ["apns"]
    emulator.clear()
    for _ in range(4):  # the first run probes, the next send
        api.let_pass(20)
        run.retry_failed()
    assert {api.status(row) for row in rows} == {("SENT", 1, None)}


def test_a_credentials_fault_burns_no_attempt_and_prunes_no_device(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="project_not_found"))
    row = api.notify("phone")
    run.drain()
    entry = json.loads(api.rows("SELECT devices FROM worker_deliveries")[0]["devices"])
    assert [attempts for _, attempts, *_ in entry.values()] == [0]
    assert api.rows("SELECT * FROM worker_dead_devices") == []
    assert "NOT_FOUND" in (api.status(row)[2] or "")
    health = api.rows("SELECT opened_at, reason FROM worker_providers WHERE provider = 'fcm'")[0]
    assert health["opened_at"] is not None
    assert "NOT_FOUND" in health["reason"]


def test_a_subscription_that_points_elsewhere_is_never_called(api: Chat, emulator: Emulator) -> None:
    inside = {**browser(emulator), "endpoint": "https://169.254.169.254/latest/meta-data"}
    row = api.notify(inside)
    run.drain()
    status, _, why = api.status(row)
    assert status == "BOUNCED"
    assert why is not None
    assert "WEBPUSH_HOSTS" in why
    assert emulator.stats().requests("webpush") == 0


def test_a_subscription_with_unusable_keys_bounces(api: Chat, emulator: Emulator) -> None:
    row = api.notify({**browser(emulator), "keys": {"p256dh": "AAAA", "auth": "AAAA"}})
    run.drain()
    assert api.status(row)[0] == "BOUNCED"
    assert emulator.stats().requests("webpush") == 0


def test_a_token_endpoint_that_trickles_holds_nobody_but_fcm(
    api: Chat, accepted: Accepted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_token, "CALL_SECONDS", 1.0)
    with trickling("body") as server:
        ensure_service_account(tmp_path, f"http://127.0.0.1:{server.address[1]}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "service-account.json"))
        get_settings.cache_clear()
        rows = [api.notify(f"phone-{number}") for number in range(200)]
        other = api.notify(iphone())
        run.drain()
    assert api.status(other) == ("SENT", 1, None)
    assert accepted() == [(str(other), IPHONE)]
    assert {api.status(row)[:2] for row in rows} <= {("PENDING", 0), ("FAILED", 0)}
    tried = api.rows("SELECT COUNT(*) AS rows_tried FROM worker_deliveries WHERE devices LIKE '%waiting\",1%'")
    assert tried[0]["rows_tried"] == 0
