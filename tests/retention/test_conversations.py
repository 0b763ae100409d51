"""closed_conversations and idle_conversations: only what is closed, or idle, for long enough is touched."""

from typing import Any

import pytest
from sqlalchemy import Engine, text

from tasks.retention import rules
from tasks.retention.policies import POLICIES
from tasks.retention.run import Report, run_policy
from tests.retention.rows import conversation

LONG_AGO = "NOW() - INTERVAL 366 DAY"
CLOSED = {"is_closed": "1", "closed_at": LONG_AGO, "closed_reason": "'MANUAL_CLOSE'"}


def deactivated(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT id FROM conversations WHERE is_active = 0 ORDER BY id")).scalars())


def run(engine: Engine, name: str = "closed_conversations") -> Report:
    return run_policy(engine, POLICIES[name], by="test")


@pytest.mark.parametrize(
    ("columns", "goes"),
    [
        (CLOSED, True),
        ({**CLOSED, "closed_at": "NOW() - INTERVAL 364 DAY"}, False),
        ({**CLOSED, "closed_at": "NOW() - INTERVAL 365 DAY + INTERVAL 1 MINUTE"}, False),
        ({**CLOSED, "closed_at": "NULL"}, False),
        ({**CLOSED, "closed_at": "'2038-01-19 03:14:07'"}, False),
        ({**CLOSED, "is_active": "NULL"}, True),
        ({**CLOSED, "last_message_at": "NOW()"}, True),
        ({**CLOSED, "is_closed": "0"}, True),
        ({**CLOSED, "is_closed": "0", "last_message_at": "NOW() - INTERVAL 367 DAY"}, True),
        ({**CLOSED, "is_closed": "0", "last_message_at": "NOW()"}, False),
        ({**CLOSED, "is_closed": "NULL", "last_message_at": "NOW()"}, False),
        ({"last_message_at": LONG_AGO}, False),
    ],
    ids=[
        "closed",
        "364 days",
        "a minute short",
        "no closing time",
        "2038",
        "is_active unknown",
        "closed, and the system wrote",
        "closed_at alone, as in the reference",
        "nobody wrote since",
        "reopened and in use",
        "is_closed unknown and in use",
        "only quiet",
    ],
)
def test_closed_for_365_days_and_closed_still(chat: Engine, columns: dict[str, str], goes: bool) -> None:
    with chat.begin() as connection:
        conversation(connection, 7, **columns)
    assert run(chat).rows == int(goes)
    assert deactivated(chat) == ([7] if goes else [])


def test_what_was_deactivated_is_not_touched_again(chat: Engine) -> None:
    with chat.begin() as connection:
        conversation(connection, 7, **CLOSED)
    assert [run(chat).rows, run(chat).rows] == [1, 0]


@pytest.fixture
def closing_idle(chat: Engine) -> Engine:
    """A chat whose operators have enabled the closing of idle conversations."""
    with chat.begin() as connection:
        rules.change(connection, POLICIES["idle_conversations"], {"enabled": True})
    return chat


def test_idle_ones_are_left_alone_unless_an_operator_enables_it(chat: Engine) -> None:
    with chat.begin() as connection:
        conversation(connection, 7, last_message_at=LONG_AGO, updated_at=LONG_AGO, created_at=LONG_AGO)
    report = run(chat, "idle_conversations")
    assert (report.started, report.why, report.rows) == (False, "disabled", 0)


def test_an_idle_one_is_closed_with_its_reason_and_time(closing_idle: Engine) -> None:
    with closing_idle.begin() as connection:
        conversation(connection, 7, last_message_at=LONG_AGO, updated_at=LONG_AGO, created_at=LONG_AGO)
        conversation(connection, 8, updated_at=LONG_AGO, created_at=LONG_AGO)
        conversation(connection, 9, last_message_at="NOW()", updated_at=LONG_AGO, created_at=LONG_AGO)
        conversation(connection, 10, last_message_at=LONG_AGO, created_at=LONG_AGO, updated_at="NOW()")
    assert run(closing_idle, "idle_conversations").rows == 2
    with closing_idle.connect() as connection:
        rows: Any = connection.execute(
            text(
                "SELECT id, is_closed, closed_reason, ABS(TIMESTAMPDIFF(SECOND, closed_at, NOW())) < 60, is_active"
                " FROM conversations ORDER BY id"
            )
        ).all()
    closed = (1, "INACTIVE_30_DAYS", 1, 1)
    assert rows == [(7, *closed), (8, *closed), (9, 0, None, None, 1), (10, 0, None, None, 1)]
