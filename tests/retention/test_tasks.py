"""The tasks: their names, their queue, and that beat's message for each does its work."""

import pytest
from sqlalchemy import Engine, text

from beat_schedule import BEAT_SCHEDULE
from settings import ConfigurationError
from tasks.jobs import BEAT, STARTED_BY
from tasks.retention import ledger
from tasks.retention import task as retention
from tasks.retention.policies import POLICIES
from tasks.retention.rules import RuleError
from tasks.retention.run import run_policy
from tasks.typing_indicators import task as typing_indicators
from tests.retention.rows import conversation, ids, notification, parents

NAMES = (
    "tasks.typing_indicators.expire",
    "tasks.retention.purge_notifications",
    "tasks.retention.deactivate_conversations",
    "tasks.retention.purge_typing_indicators",
    "tasks.retention.purge_worker_tables",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("environment")
def test_each_has_its_name_its_queue_and_an_entry_that_expires(name: str) -> None:
    from workers.app import app

    assert name in app.tasks
    assert app.amqp.router.route({}, name)["queue"].name == "housekeeping"
    (entry,) = [entry for entry in BEAT_SCHEDULE.values() if entry["task"] == name]
    assert entry["options"]["expires"] > 0


def test_they_do_what_their_names_say(chat: Engine) -> None:
    parents(chat)
    with chat.begin() as connection:
        notification(connection, 1, created="NOW() - INTERVAL 91 DAY")
        conversation(connection, 7, is_closed="1", closed_at="NOW() - INTERVAL 366 DAY")
        for id_, seconds in ((1, 1), (2, 60)):
            connection.execute(
                text(
                    "INSERT INTO typing_indicators (id, conversation_id, user_id, expires_at)"
                    f" VALUES ({id_}, 1, 1, NOW() - INTERVAL {seconds} SECOND)"
                )
            )
    retention.purge_notifications()
    retention.deactivate_conversations()
    assert ids(chat, "chat_notifications") == []
    assert ids(chat, "conversations", "is_active = 0") == [7]
    retention.purge_typing_indicators()
    assert ids(chat, "typing_indicators") == [1]
    typing_indicators.expire()
    assert ids(chat, "typing_indicators") == []


def test_a_policy_that_fails_does_not_keep_the_next_from_running(chat: Engine) -> None:
    with chat.begin() as connection:
        connection.execute(text("REPLACE INTO worker_retention_policies (name, age) VALUES ('delivery_history', 'nonsense')"))
        connection.execute(
            text("INSERT INTO worker_delivery_counts VALUES (NOW() - INTERVAL 1 YEAR, 'fcm', 'default', 'sent', '', 1)")
        )
    with pytest.raises(RuleError, match="'nonsense' is no age"):
        retention.purge_worker_tables()
    with chat.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM worker_delivery_counts")).scalar() == 0


def test_a_policy_that_has_no_place_for_its_archive_does_not_either(chat: Engine) -> None:
    with chat.begin() as connection:
        connection.execute(text("REPLACE INTO worker_retention_policies (name, archive) VALUES ('delivery_history', 1)"))
        connection.execute(
            text("INSERT INTO worker_delivery_counts VALUES (NOW() - INTERVAL 1 YEAR, 'fcm', 'default', 'sent', '', 1)")
        )
    with pytest.raises(ConfigurationError, match="RETENTION_ARCHIVE_DIR is not set"):
        retention.purge_worker_tables()
    with chat.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM worker_delivery_counts")).scalar() == 0


def test_a_policy_that_meets_what_nobody_foresaw_does_not_either_and_the_ledger_has_its_end(chat: Engine) -> None:
    """A minute of which no earlier one can be named, as only a person could write it there."""
    with chat.begin() as connection:
        connection.execute(text("INSERT INTO worker_delivery_counts VALUES ('0001-01-01', 'fcm', 'default', 'sent', '', 1)"))
        connection.execute(
            text("INSERT INTO worker_scan_events (attachment_id, happened_at, event) VALUES (1, NOW() - INTERVAL 2 YEAR, 'x')")
        )
    with pytest.raises(OverflowError):
        retention.purge_worker_tables()
    with chat.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM worker_scan_events")).scalar() == 0
        (run,) = ledger.history(connection, "delivery_counts", 9)
        assert run["ended_because"] == "failed: OverflowError; the log says where"
        assert connection.execute(text("SELECT COUNT(*) FROM worker_events WHERE type = 'retention.failed'")).scalar() == 1


def test_a_run_ends_with_the_time_that_its_task_has_left(chat: Engine) -> None:
    with chat.begin() as connection:
        connection.execute(
            text("INSERT INTO worker_delivery_counts VALUES (NOW() - INTERVAL 1 YEAR, 'fcm', 'default', 'sent', '', 1)")
        )
    report = run_policy(chat, POLICIES["delivery_counts"], by="t", seconds=0)
    assert (report.rows, report.why) == (0, "its time is up")


def test_the_ledger_names_who_sent_the_message(chat: Engine) -> None:
    """Who gives the order has it done now; beat's next message finds that today's run was made."""
    retention.purge_notifications.apply(headers={STARTED_BY: BEAT})
    retention.purge_notifications.apply(headers={STARTED_BY: "ann@host"})
    retention.purge_notifications.apply()
    again = retention.purge_notifications.apply(headers={STARTED_BY: BEAT})
    assert again.result == "read_notifications: did not run: not due: today's run was made"
    with chat.connect() as connection:
        assert [run["started_by"] for run in ledger.history(connection, None, 4)] == ["a message", "ann@host", "beat"]
