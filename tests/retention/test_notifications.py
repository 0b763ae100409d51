"""read_notifications: exactly the read ones older than 90 days go."""

from sqlalchemy import Engine, text

from tasks.retention.policies import POLICIES
from tasks.retention.run import run_policy
from tests.retention.rows import ids, notification, notifications, parents

POLICY = POLICIES["read_notifications"]


def test_read_ones_older_than_90_days_go_and_no_others(chat: Engine) -> None:
    parents(chat)
    with chat.begin() as connection:
        notification(connection, 1, created="NOW() - INTERVAL 91 DAY")
        notification(connection, 2, created="NOW() - INTERVAL 91 DAY", is_read="0")
        notification(connection, 3, created="NOW() - INTERVAL 91 DAY", is_read="NULL")
        notification(connection, 4, created="NOW() - INTERVAL 89 DAY")
        notification(connection, 5, created="NOW() - INTERVAL 90 DAY - INTERVAL 2 SECOND")
        notification(connection, 6, created="NOW() - INTERVAL 90 DAY + INTERVAL 1 MINUTE")
        notification(connection, 7, created="'2038-01-19 03:14:07'")
        notification(connection, 8, created="'1970-01-01 00:00:01'")
        connection.execute(text("UPDATE chat_notifications SET created_at = NULL WHERE id = 4"))
        notification(connection, 9, created="NOW() - INTERVAL 89 DAY")
    report = run_policy(chat, POLICY, by="test")
    assert ids(chat, "chat_notifications") == [2, 3, 4, 6, 7, 9]
    assert (report.rows, report.why, report.started) == (3, "finished", True)


def test_a_big_one_goes_in_batches(chat: Engine) -> None:
    parents(chat)
    with chat.begin() as connection:
        notifications(connection, range(1, 3001), created="NOW() - INTERVAL 91 DAY")
    report = run_policy(chat, POLICY, by="test")
    assert report.rows == 3000
    assert ids(chat, "chat_notifications") == []
