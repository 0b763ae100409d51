"""What was read elsewhere or deleted goes from the phones, and their badge is right."""

from collections.abc import Callable

import pytest
from redis import Redis
from sqlalchemy import event

from devstack.emulators.client import Emulator, Fault
from settings import get_settings
from tasks.notifications import run, withdrawal
from tasks.notifications.devices import MOST_DEVICES
from tasks.notifications.payload import MOST_BYTES, build_push
from tasks.notifications.providers import configured_providers
from tasks.notifications.providers.webpush import MOST_TEXT_BYTES
from tasks.pause import pause
from tests.acceptance.conftest import Send, nudge, send, start_worker
from tests.notifications.conftest import Chat
from tests.notifications.test_apps import IPHONE, Apps, apps, of_app
from tests.notifications.unit.made import NOW, a_notification
from tests.processes import Process, wait_until

__all__ = ["apps", "nudge", "send", "start_worker"]

ASKED = "[driver]\nandroid = 'data'\nwithdraw = ['fcm', 'apns']\n[driver.fcm]\n<fcm>\n[driver.apns]\n<apns>\n"
PHONE, APPLE = of_app("driver", "phone"), of_app("driver", IPHONE, "apns")


pytestmark = pytest.mark.usefixtures("redis")


def withdrawn(emulator: Emulator) -> list[str]:
    """Return the tokens that withdrawals were accepted for: these name no notification of their own."""
    return sorted(message.token for message in emulator.accepted() if message.notification_id is None)


def let_hold_pass(redis: Redis) -> None:
    redis.delete(f"{withdrawal.HELD}2")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chat_notifications SET is_read = TRUE WHERE id = :row",
        "INSERT INTO message_reads (message_id, reader_id, conversation_id, status) SELECT message_id, 2, 1, 'READ'"
        " FROM chat_notifications WHERE id = :row",
        "UPDATE messages SET is_deleted = TRUE WHERE id = (SELECT message_id FROM chat_notifications WHERE id = :row)",
    ],
    ids=["is_read", "message_reads", "is_deleted"],
)
def test_what_is_read_or_deleted_goes_and_the_rest_stays(api: Chat, emulator: Emulator, apps: Apps, statement: str) -> None:
    apps(ASKED)
    emulator.go_offline("phone")
    gone, stays = (api.notify(PHONE, APPLE, of_app("driver", "x", "webpush")) for _ in range(2))
    run.drain()
    api.execute(statement, row=gone)
    assert run.withdraw(2) == 2
    assert withdrawn(emulator) == sorted([IPHONE, "phone"])
    assert [shown["tag"] for shown in emulator.come_back("phone")] == [f"notification-{stays}"]
    assert run.withdraw(2) is None
    assert not run.can_withdraw(2)


def test_one_push_a_device_takes_all_away_and_a_second_within_a_moment_waits(
    api: Chat, emulator: Emulator, apps: Apps, redis: Redis
) -> None:
    apps(ASKED)
    for _ in range(3):
        api.notify(PHONE)
    run.drain()
    api.execute("UPDATE chat_notifications SET is_read = TRUE ORDER BY id LIMIT 2")
    assert run.withdraw(2) == 1
    api.execute("UPDATE chat_notifications SET is_read = TRUE")
    assert run.withdraw(2) is None
    assert not run.can_withdraw(2)
    let_hold_pass(redis)
    assert run.can_withdraw(2)
    assert run.withdraw(2) == 1
    assert withdrawn(emulator) == ["phone", "phone"]
    assert redis.strlen(f"{withdrawal.WITHDRAWN}2") == 3 * 6


def test_no_withdrawal_has_more_devices_than_any_row_may_have(api: Chat, apps: Apps) -> None:
    apps(ASKED)
    for row in range(2):
        api.notify(*(of_app("driver", f"{row}-{number}") for number in range(600)), is_sent=True, is_read=True)
    api.execute("UPDATE chat_notifications SET sent_at = NOW()")
    found = withdrawal.find(api.engine, 2, configured_providers(get_settings()))
    assert found
    assert len(found.due) == MOST_DEVICES


def test_nothing_is_withdrawn_unless_the_app_asks(api: Chat, emulator: Emulator, apps: Apps) -> None:
    apps(ASKED.replace("withdraw", "# withdraw"))
    api.notify(PHONE, APPLE, "plain")
    run.drain()
    api.execute("UPDATE chat_notifications SET is_read = TRUE")
    asked: list[object] = []

    def note(*said: object) -> None:
        asked.append(said[2])

    event.listen(api.engine, "before_cursor_execute", note)
    assert run.withdraw(2) == 0
    event.remove(api.engine, "before_cursor_execute", note)
    assert withdrawn(emulator) == asked == []


def test_one_that_failed_or_was_held_back_is_tried_at_the_next_call(
    api: Chat, emulator: Emulator, apps: Apps, redis: Redis
) -> None:
    apps(ASKED)
    api.notify(PHONE)
    run.drain()
    api.execute("UPDATE chat_notifications SET is_read = TRUE")
    emulator.inject(Fault(kind="unavailable", times=1))
    assert run.withdraw(2) == 0
    let_hold_pass(redis)
    with api.engine.begin() as connection:
        pause(connection, (), "ann@host", "")
    assert run.withdraw(2) == 0
    let_hold_pass(redis)
    api.execute("DELETE FROM worker_pauses")
    assert run.withdraw(2) == 1
    assert withdrawn(emulator) == ["phone"]


def test_an_id_that_comes_back_is_withdrawn_again(api: Chat, emulator: Emulator, apps: Apps, redis: Redis) -> None:
    apps(ASKED)
    for hours in (2, 1):
        api.execute("DELETE FROM chat_notifications")
        api.notify(PHONE, id=77)
        run.drain()
        api.execute("UPDATE chat_notifications SET is_read = TRUE, sent_at = NOW() - INTERVAL :hours HOUR", hours=hours)
        assert run.withdraw(2) == 1
        let_hold_pass(redis)
    assert withdrawn(emulator) == ["phone", "phone"]


def test_what_a_push_has_no_room_for_is_told_by_the_next(
    api: Chat, apps: Apps, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps(ASKED)
    first, second, third = (api.notify(PHONE, id=id_) for id_ in (71, 72, 73))
    run.drain()
    api.execute("UPDATE chat_notifications SET is_read = TRUE")
    monkeypatch.setattr(withdrawal, "LONGEST_IDS", len("73 72"))
    fcm, told = configured_providers(get_settings())["fcm.driver"], []
    while found := withdrawal.find(api.engine, 2, {"fcm.driver": fcm}):
        told.append(fcm.show(found.prepared["fcm.driver"])["message"]["data"]["withdrawn"])
        assert run.withdraw(2) == 1
        let_hold_pass(redis)
    assert told == [f"{third} {second}", str(first)]


def test_it_shows_nothing_and_sets_the_badge(api: Chat, apps: Apps) -> None:
    apps(ASKED)
    row = api.notify(PHONE, APPLE)
    run.drain()
    api.execute("UPDATE chat_notifications SET is_read = TRUE")
    api.insert("chat_participants", conversation_id=1, user_id=2, unread_count=3)
    providers = configured_providers(get_settings())
    found = withdrawal.find(api.engine, 2, providers)
    assert found is not None
    message, shown = (providers[lane].show(found.prepared[lane]) for lane in ("fcm.driver", "apns.driver"))
    message = message["message"]
    assert message["data"] == {"type": "WITHDRAWAL", "withdrawn": str(row), "badge": "3"}
    assert message["android"]["priority"] == "normal"
    assert "notification" not in message
    assert shown["payload"]["aps"] == message["apns"]["payload"]["aps"] == {"badge": 3, "content-available": 1}
    assert shown["payload"]["withdrawn"] == str(row)
    assert (shown["headers"]["apns-push-type"], shown["headers"]["apns-priority"]) == ("alert", "5")


@pytest.mark.parametrize(("newest", "told"), [(2**31, withdrawal.MOST_ROWS), (2**62, 165)])
def test_so_many_ids_fit_into_every_provider_s_limit(apps: Apps, newest: int, told: int) -> None:
    apps(ASKED + "[driver.webpush]\n<webpush>\n")
    ids = withdrawal.listed(newest - number for number in range(withdrawal.MOST_ROWS))
    assert ids.split() == [str(newest - number) for number in range(told)]
    push = build_push(a_notification(), NOW)._replace(data={"type": "WITHDRAWAL", "withdrawn": ids}, badge=99)
    providers = configured_providers(get_settings())
    assert len(providers["fcm.driver"].prepare_withdrawal(push)) < MOST_BYTES
    assert len(providers["apns.driver"].prepare_withdrawal(push)[0]) < MOST_BYTES
    assert len(providers["webpush.driver"].prepare_withdrawal(push)[0]) < MOST_TEXT_BYTES


def test_real_workers_withdraw_after_the_api_s_update(
    api: Chat,
    emulator: Emulator,
    apps: Apps,
    redis: Redis,
    start_worker: Callable[..., Process],
    send: Send,
    nudge: Callable[[], None],
) -> None:
    """Both conversations that were read at once, with one push after the other."""
    apps(ASKED)
    start_worker()
    for _ in range(2):
        api.notify(PHONE, APPLE)
    nudge()
    wait_until(lambda: len(list(emulator.accepted())) == 4, "all was sent")
    api.execute("UPDATE chat_notifications SET is_read = TRUE ORDER BY id LIMIT 1")
    send("tasks.notifications.withdraw", 2, 1)
    wait_until(lambda: len(withdrawn(emulator)) == 2, "the first was withdrawn")
    api.execute("UPDATE chat_notifications SET is_read = TRUE")
    send("tasks.notifications.withdraw", 2, 1)
    wait_until(lambda: len(withdrawn(emulator)) == 4, "the second was withdrawn, once the first was a moment ago")


def test_one_that_comes_while_the_push_is_in_flight_is_looked_at_again(
    api: Chat,
    emulator: Emulator,
    apps: Apps,
    redis: Redis,
    start_worker: Callable[..., Process],
    send: Send,
    nudge: Callable[[], None],
) -> None:
    apps(ASKED)
    start_worker()
    emulator.inject(Fault(kind="slow", latency=1))
    api.notify(PHONE)
    nudge()
    wait_until(lambda: emulator.stats().in_flight > 0, "the push was on its way")
    api.execute("UPDATE chat_notifications SET is_read = TRUE")
    send("tasks.notifications.withdraw", 2, 1)
    wait_until(lambda: withdrawn(emulator) == ["phone"], "it was withdrawn")


def test_no_push_waits_behind_a_heap_of_withdrawals(
    api: Chat,
    emulator: Emulator,
    apps: Apps,
    redis: Redis,
    start_worker: Callable[..., Process],
    send: Send,
    nudge: Callable[[], None],
) -> None:
    apps(ASKED)
    for recipient in range(1000):
        send("tasks.notifications.withdraw", recipient, 1)
    api.notify(PHONE)
    nudge()
    start_worker(processes=1, wait=False)
    wait_until(lambda: bool(list(emulator.accepted())), "the push was sent", every=0.01)
    assert redis.llen("notifications") > 500
