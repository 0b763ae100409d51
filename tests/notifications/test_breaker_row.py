"""What a run asks of the breakers' rows before its first message, and what it leaves there."""

import json

import pytest
from sqlalchemy import text

from tasks.notifications.breaker import BreakerState, Standing, Tally, ask
from tests.notifications.conftest import Chat

RATE = 10_000.0


def asked(api: Chat, rate: float = RATE, **tallies: Tally) -> dict[str, Standing]:
    return ask(api.engine, {"fcm": Tally(), "apns": Tally(), "fcm.driver": Tally()} | tallies, rate)


def wait_for(api: Chat, lane: str, seconds: int) -> None:
    row = api.notify("phone")
    api.execute(
        "INSERT INTO worker_deliveries (notification_id, waiting_on, due_at, identity)"
        " VALUES (:row, :lane, NOW(3) + INTERVAL :seconds SECOND, '')",
        row=row,
        lane=lane,
        seconds=seconds,
    )


@pytest.mark.parametrize(
    ("lane", "due"),
    [
        ("", {"fcm", "apns", "fcm.driver"}),
        ("fcm", {"fcm"}),
        ("fcm.driver", {"fcm.driver"}),
        ("webpush", set()),
    ],
)
def test_it_sees_in_which_lanes_rows_are_due_though_others_hold_them(api: Chat, lane: str, due: set[str]) -> None:
    wait_for(api, lane, 3600)
    assert not any(standing.due for standing in asked(api).values())
    wait_for(api, lane, -1)
    with api.engine.begin() as other:
        other.execute(text("SELECT * FROM worker_deliveries FOR UPDATE"))
        assert {name for name, standing in asked(api).items() if standing.due} == due


def test_a_run_that_begins_writes_nothing_while_the_bucket_is_full(api: Chat) -> None:
    asked(api, fcm=Tally(answered=100, leaving=True))
    before = api.rows("SELECT * FROM worker_providers ORDER BY id")
    standing = asked(api)["fcm"]
    assert (standing.state, standing.reserved) == (BreakerState.CLOSED, False)
    assert api.rows("SELECT * FROM worker_providers ORDER BY id") == before
    asked(api, fcm=Tally(answered=100, leaving=True))
    [row] = api.rows("SELECT tokens, answered FROM worker_providers WHERE provider = 'fcm' AND app = 'default'")
    assert row["answered"] == 200
    assert 10 * RATE - 200 <= row["tokens"] <= 10 * RATE - 100


def test_one_that_may_use_up_the_rate_takes_its_share_in_advance(api: Chat) -> None:
    assert [asked(api, rate=60)["fcm"].state for _ in range(3)] == [BreakerState.CLOSED, BreakerState.CLOSED, BreakerState.OPEN]
    assert json.loads(api.rows("SELECT JSON_ARRAYAGG(tokens < 1) AS used FROM worker_providers")[0]["used"]) == [1, 1, 1]
