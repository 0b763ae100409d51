"""Typing indicators: the minute job takes what has expired, the sweep what expired ten seconds ago."""

import pytest
from sqlalchemy import Connection, Engine, text

from db.locks import hold
from tasks.pause import RESTORE, pause
from tasks.retention.policies import POLICIES
from tasks.retention.run import run_policy
from tasks.typing_indicators.expire import LOCK, expire
from tests.retention.rows import ids, parents


def indicator(connection: Connection, id: int, expires: str) -> None:  # noqa: A002
    columns = "(id, conversation_id, user_id, expires_at)"
    connection.execute(text(f"INSERT INTO typing_indicators {columns} VALUES ({id}, 1, 1, {expires})"))


def typing(engine: Engine, *expires: str) -> None:
    parents(engine)
    with engine.begin() as connection:
        for id_, moment in enumerate(expires, 1):
            indicator(connection, id_, moment)


def test_the_minute_job_takes_what_has_expired_and_nothing_else(chat: Engine) -> None:
    typing(
        chat,
        "NOW() - INTERVAL 1 SECOND",
        "NOW() + INTERVAL 1 MINUTE",
        "NOW() - INTERVAL 1 YEAR",
        "'2038-01-19 03:14:07'",
        "'1970-01-01 00:00:01'",
    )
    assert expire(chat) == 4
    assert ids(chat, "typing_indicators") == [2]


def test_the_sweep_leaves_ten_seconds(chat: Engine) -> None:
    typing(chat, "NOW() - INTERVAL 60 SECOND", "NOW() - INTERVAL 2 SECOND", "NOW() + INTERVAL 1 MINUTE")
    assert run_policy(chat, POLICIES["typing_indicators"], by="test").rows == 1
    assert ids(chat, "typing_indicators") == [2, 3]


def test_an_api_in_another_time_zone_loses_no_live_row(chat: Engine) -> None:
    """TIMESTAMP against a bound time goes wrong as soon as the session's zone is not the one that the time was made in."""
    parents(chat)
    for id_, zone in ((1, "-04:00"), (2, "+09:00")):
        with chat.connect() as api:
            api.execute(text(f"SET time_zone = '{zone}'"))
            indicator(api, id_, "NOW() + INTERVAL 1 MINUTE")
            indicator(api, id_ + 10, "NOW() - INTERVAL 1 MINUTE")
            api.commit()
            api.execute(text("SET time_zone = '+00:00'"))
    assert expire(chat) == 2
    assert ids(chat, "typing_indicators") == [1, 2]


def test_a_second_job_leaves_it_to_the_first(chat: Engine) -> None:
    typing(chat, "NOW() - INTERVAL 1 YEAR")
    with hold(chat, LOCK):
        assert expire(chat) is None
    assert expire(chat) == 1


def test_a_row_that_is_renewed_while_the_job_runs_stays(chat: Engine) -> None:
    """The API renews a row in a transaction that is still open when the job comes to it."""
    typing(chat, *["NOW() - INTERVAL 1 YEAR"] * 20)
    with chat.connect() as api:
        api.execute(text("UPDATE typing_indicators SET expires_at = NOW() + INTERVAL 5 SECOND WHERE id = 7"))
        assert expire(chat) == 19
        api.commit()
    assert ids(chat, "typing_indicators") == [7]


@pytest.mark.parametrize("what", ["retention:typing_indicators", RESTORE])
def test_an_operators_pause_stops_the_minute_job_too_and_so_does_a_restore(chat: Engine, what: str) -> None:
    typing(chat, "NOW() - INTERVAL 1 MINUTE")
    with chat.begin() as connection:
        pause(connection, [what], "test", "")
    assert expire(chat) == 0
    assert ids(chat, "typing_indicators") == [1]


@pytest.mark.parametrize("job", ["the minute job", "the sweep"])
@pytest.mark.parametrize("began", ["NULL", "NOW() + INTERVAL 1 YEAR", "NOW()", "NOW() - INTERVAL 61 MINUTE"])
def test_an_indicator_that_would_never_end_goes_whenever_it_says_that_it_began(chat: Engine, began: str, job: str) -> None:
    typing(chat, "NOW() + INTERVAL 5 SECOND", "NOW() + INTERVAL 1 YEAR")
    with chat.begin() as connection:
        connection.execute(text(f"UPDATE typing_indicators SET started_at = {began} WHERE id = 2"))
    if job == "the sweep":
        run_policy(chat, POLICIES["typing_indicators"], by="test")
    else:
        expire(chat)
    assert ids(chat, "typing_indicators") == [1]
