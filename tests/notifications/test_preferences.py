"""Who is left in peace: each rule, and which one wins."""

import os

import pytest

from devstack.emulators.client import Emulator, Fault
from tasks.notifications import run
from tasks.notifications.preferences import MOST_CONVERSATIONS
from tasks.notifications.queue import Queue
from tests.notifications.conftest import Accepted, Chat

PARTICIPANT = "INSERT INTO chat_participants (conversation_id, user_id, {0}) VALUES (1, 2, {1})"
SETTINGS = "INSERT INTO conversation_settings (conversation_id, user_id, {0}) VALUES (1, 2, {1})"
SENDER = "INSERT INTO chat_participants (conversation_id, user_id, {0}) VALUES (1, 1, {1})"
READ = "INSERT INTO message_reads (message_id, conversation_id, reader_id, status) SELECT id, 1, 2, {0} FROM messages"

SUPPRESSED = {
    "muted for ever": (PARTICIPANT.format("is_muted", "1"), "muted"),
    "muted until tomorrow": (PARTICIPANT.format("is_muted, muted_until", "1, NOW() + INTERVAL 1 DAY"), "muted"),
    "blocked": (PARTICIPANT.format("is_blocked", "1"), "blocked"),
    "blocked by status": (PARTICIPANT.format("status", "'BLOCKED'"), "blocked"),
    "the sender blocked": (SENDER.format("is_blocked", "1"), "blocked"),
    "the sender blocked by status": (SENDER.format("status", "'BLOCKED'"), "blocked"),
    "closed for a block": ("UPDATE conversations SET is_closed = 1, closed_reason = 'BLOCKED_USER'", "blocked"),
    "muted until a date of zeros": (PARTICIPANT.format("is_muted, muted_until", "1, '0000-00-00'"), "muted"),
    "left": (PARTICIPANT.format("left_at", "NOW()"), "the recipient left the conversation"),
    "left, joined at an unknown time": (
        PARTICIPANT.format("joined_at, left_at", "NULL, NOW()"),
        "the recipient left the conversation",
    ),
    "notifications off": (SETTINGS.format("notifications_enabled", "0"), "notifications are off"),
    "type NONE": (SETTINGS.format("notification_type", "'NONE'"), "notifications are off"),
    "mentions only": (SETTINGS.format("notification_type", "'MENTIONS_ONLY'"), "mentions only"),
    "mobile off": (SETTINGS.format("mobile_notifications", "0"), "notifications to these devices are off"),
    "message deleted": ("UPDATE messages SET is_deleted = 1", "the message was deleted"),
    "message read": (READ.format("'READ'"), "already read"),
    "read further": (PARTICIPANT.format("last_read_message_id", "(SELECT MAX(id) FROM messages)"), "already read"),
    "notification read": ("UPDATE chat_notifications SET is_read = 1", "already read"),
}
WANTED = {
    "nothing set": "DO 0",
    "mute is over": PARTICIPANT.format("is_muted, muted_until", "1, NOW() - INTERVAL 1 SECOND"),
    "a mute that was taken back": PARTICIPANT.format("is_muted, muted_until", "0, NOW() + INTERVAL 1 DAY"),
    "delivered, not read": READ.format("'DELIVERED'"),
    "will leave": PARTICIPANT.format("left_at", "NOW() + INTERVAL 1 DAY"),
    "left and joined again": PARTICIPANT.format("left_at, joined_at", "NOW() - INTERVAL 2 DAY, NOW() - INTERVAL 1 DAY"),
    "left on a date of zeros": PARTICIPANT.format("left_at", "'0000-00-00'"),
    "nothing known of the recipient": PARTICIPANT.format(
        "unread_count, is_muted, is_blocked, last_read_message_id, joined_at, status", "NULL, NULL, NULL, NULL, NULL, NULL"
    ),
    "nothing known of the preferences": SETTINGS.format(
        "notifications_enabled, notification_type, desktop_notifications, mobile_notifications, sound_enabled",
        "NULL, NULL, NULL, NULL, NULL",
    ),
    "nothing known of the message": "UPDATE messages SET is_deleted = NULL",
    "nothing known of its reading": READ.format("NULL"),
    "nothing known of the row": (
        "UPDATE chat_notifications SET notification_type = NULL, is_sent = NULL, is_read = NULL, error_message = ''"
    ),
    "opened again after a block": "UPDATE conversations SET is_closed = 0, closed_reason = 'BLOCKED_USER'",
    "closed for another reason": "UPDATE conversations SET is_closed = 1, closed_reason = 'MANUAL_CLOSE'",
    "nothing known of the conversation": "UPDATE conversations SET is_active = NULL, is_closed = NULL, closed_reason = NULL",
    "archived": PARTICIPANT.format("status", "'ARCHIVED'"),
    "desktop off": SETTINGS.format("desktop_notifications", "0"),
    "another user muted": "INSERT INTO chat_participants (conversation_id, user_id, is_muted) VALUES (1, 1, 1)",
}


@pytest.mark.parametrize("case", SUPPRESSED)
def test_it_is_suppressed(api: Chat, emulator: Emulator, case: str) -> None:
    statement, reason = SUPPRESSED[case]
    row = api.notify()
    api.execute(statement)
    run.drain()
    assert api.status(row) == ("BOUNCED", 0, f"suppressed: {reason}")
    assert emulator.stats().requests() == 0


@pytest.mark.parametrize("case", WANTED)
def test_it_is_sent(api: Chat, emulator: Emulator, case: str) -> None:
    row = api.notify()
    api.execute(WANTED[case])
    run.drain()
    assert api.status(row) == ("SENT", 1, None)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("MENTION", "SENT"), ("MESSAGE", "BOUNCED"), ("SYSTEM", "BOUNCED"), (None, "BOUNCED")],
    ids=["mention", "message", "system", "unknown"],
)
def test_only_a_mention_passes_mentions_only(api: Chat, emulator: Emulator, kind: str | None, status: str) -> None:
    row = api.notify(notification_type=kind)
    api.execute(SETTINGS.format("notification_type", "'MENTIONS_ONLY'"))
    run.drain()
    assert api.status(row)[0] == status


def test_a_mute_holds_for_mentions_too(api: Chat, emulator: Emulator) -> None:
    row = api.notify(notification_type="MENTION")
    api.execute(PARTICIPANT.format("is_muted", "1"))
    run.drain()
    assert api.status(row)[2] == "suppressed: muted"


def test_preferences_count_when_the_push_is_sent_not_when_it_was_written(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unavailable", times=1))
    row = api.notify()
    run.drain()
    api.execute(PARTICIPANT.format("is_muted", "1"))
    api.let_pass(20)
    run.retry_failed()
    assert api.status(row) == ("BOUNCED", 0, "suppressed: muted")


def test_the_badge_counts_the_unread_of_conversations_that_may_ring(api: Chat) -> None:
    changes = ("is_muted = 0", "is_muted = 1", "left_at = NOW()", "is_blocked = 1", "is_muted = 1, muted_until = joined_at")
    for number, change in enumerate(changes, 2):
        api.insert("users", id=number + 100, first_name="A", last_name="B")
        api.insert("conversations", id=number, conversation_id=f"c-{number}", initiator_id=number + 100, receiver_id=2)
        api.insert("chat_participants", conversation_id=number, user_id=2, unread_count=10**number)
        api.execute(f"UPDATE chat_participants SET {change} WHERE conversation_id = {number}")
    api.notify()
    api.notify(recipient_id=1)
    claimed = Queue(api.engine, "0" * 32).claim_fresh(2)
    assert {notification.recipient_id: notification.badge for notification in claimed} == {1: 0, 2: 10**2 + 10**6}


def test_who_is_in_any_number_of_conversations_holds_nobody_up(api: Chat) -> None:
    """MySQL counts the conversations anew for each row: 200,000 took 100 ms, and a batch of 500 rows was never sent."""
    rows = ", ".join(f"({number}, 2, 1)" for number in range(2, MOST_CONVERSATIONS + 102))
    with api.engine.begin() as connection:
        connection.exec_driver_sql("SET foreign_key_checks = 0")
        connection.exec_driver_sql(f"INSERT INTO chat_participants (conversation_id, user_id, unread_count) VALUES {rows}")
        connection.exec_driver_sql("SET foreign_key_checks = 1")
    api.notify()
    [claimed] = Queue(api.engine, "0" * 32).claim_fresh(1)
    assert claimed.badge == MOST_CONVERSATIONS + (0 if os.environ.get("DEVSTACK_DATABASE") == "mysql" else 100)


def test_a_doubled_row_of_preferences_doubles_no_push(api: Chat, accepted: Accepted) -> None:
    api.execute("ALTER TABLE chat_participants ADD INDEX doubled (conversation_id, user_id), DROP INDEX idx_conv_user")
    try:
        for _ in range(3):
            api.insert("chat_participants", conversation_id=1, user_id=2)
        row = api.notify("phone")
        run.drain()
        assert (api.status(row)[0], accepted()) == ("SENT", [(str(row), "phone")])
    finally:
        api.execute("DELETE FROM chat_participants")
        api.execute("ALTER TABLE chat_participants ADD UNIQUE idx_conv_user (conversation_id, user_id), DROP INDEX doubled")
