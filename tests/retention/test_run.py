"""A run: one at a time, within what operators set, true in the ledger, and exact after any death."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db.locks import hold, is_held
from settings import get_settings
from tasks.pause import RESTORE, held, pause, resume
from tasks.retention import ledger, rules
from tasks.retention import plan as preview
from tasks.retention.policies import POLICIES
from tasks.retention.rules import RuleError
from tasks.retention.run import RunFailedError, run_policy
from tests.processes import wait_until
from tests.retention.rows import ids, notification, notifications, parents

POLICY = POLICIES["read_notifications"]
OLD, NEW = "NOW() - INTERVAL 91 DAY", "NOW() - INTERVAL 1 DAY"


@pytest.fixture
def full(chat: Engine) -> Engine:
    """A chat with 2000 old notifications that were read, and 10 that were not."""
    parents(chat)
    with chat.begin() as connection:
        notifications(connection, range(1, 2001), created=OLD)
        notifications(connection, range(2001, 2011), created=OLD, is_read="0")
    return chat


def set_rule(engine: Engine, **fields: Any) -> None:
    with engine.begin() as connection:
        rules.change(connection, POLICY, fields)


def latest(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return dict(ledger.history(connection, POLICY.name, 1)[0])


def sleep_on_the_server(engine: Engine, seconds: float) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT SLEEP(:seconds)"), {"seconds": seconds})


def cut(engine: Engine) -> None:
    """Cut off the session of the run's lock."""
    with engine.connect() as connection:
        name = f"chat-workers:{engine.url.database}:{ledger.lock_of(POLICY.name)}"
        if holder := connection.execute(text("SELECT IS_USED_LOCK(:n)"), {"n": name}).scalar():
            connection.execute(text(f"KILL {holder}"))
            wait_until(lambda: not is_held(engine, ledger.lock_of(POLICY.name)), "the killed session had let go", every=0.005)


def test_the_ledger_says_who_when_how_many_and_why_it_ended(full: Engine) -> None:
    report = run_policy(full, POLICY, by="ann@host")
    run = latest(full)
    assert (run["id"], run["started_by"], run["rows_done"], run["ended_because"]) == (report.run, "ann@host", 2000, "finished")
    assert run["started_at"] <= run["ended_at"]
    assert run["batches"] == report.batches > 1


def test_the_second_of_two_runs_says_so_and_leaves(full: Engine) -> None:
    inside, go = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        inside.set()
        go.wait(20)

    first = threading.Thread(target=run_policy, args=(full, POLICY), kwargs={"by": "ann", "progress": wait})
    first.start()
    assert inside.wait(20)
    second = run_policy(full, POLICY, by="bob")
    go.set()
    first.join()
    assert (second.started, second.rows) == (False, 0)
    assert second.why.startswith("already running")
    assert latest(full)["rows_done"] == 2000
    assert len(ids(full, "chat_notifications")) == 10


def test_a_run_that_reached_its_rows_leaves_the_rest_to_the_next(full: Engine) -> None:
    set_rule(full, rows_per_run=700)
    assert run_policy(full, POLICY, by="t").why == "its rows per run are done"
    assert [run_policy(full, POLICY, by="t").rows for _ in range(3)] == [700, 600, 0]
    assert ids(full, "chat_notifications") == list(range(2001, 2011))


def test_a_pause_ends_a_run_between_batches_and_keeps_others_from_starting(full: Engine) -> None:
    set_rule(full, batch_rows=1)

    def pause_soon(_: object) -> None:
        with full.begin() as connection:
            pause(connection, [f"retention:{POLICY.name}"], "ann", "")

    report = run_policy(full, POLICY, by="t", progress=pause_soon)
    assert report.why.startswith("paused by ann at ")
    assert 0 < report.rows < 2000
    assert run_policy(full, POLICY, by="t").started is False
    with full.begin() as connection:
        resume(connection, [f"retention:{POLICY.name}"])
    set_rule(full, batch_rows=None)
    assert run_policy(full, POLICY, by="t").rows == 2000 - report.rows


def test_while_a_restore_is_half_done_no_policy_runs_for_what_is_gone_for_a_moment_is_not_gone(full: Engine) -> None:
    set_rule(full, batch_rows=1)

    def restore(_: object) -> None:
        with full.begin() as connection:
            pause(connection, [RESTORE], "ann", "the restore of backup_chat_20261201.sql.zst")

    report = run_policy(full, POLICY, by="t", progress=restore)
    assert report.why == rules.RESTORING
    assert 0 < report.rows < 2000
    with full.begin() as connection:
        pause(connection, [f"retention:{POLICY.name}"], "ann", "")
    assert {run_policy(full, each, by="t", any_hour=True).why for each in POLICIES.values()} == {rules.RESTORING, "disabled"}


def test_a_restore_waits_for_the_end_of_a_run_that_is_under_way_and_for_no_killed_one(full: Engine) -> None:
    inside, go = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        inside.set()
        go.wait(20)

    with full.begin() as connection:
        ledger.Entry(connection, POLICIES["events"], "killed", POLICY.shortest)
    running = threading.Thread(target=run_policy, args=(full, POLICY), kwargs={"by": "ann", "progress": wait})
    running.start()
    assert inside.wait(20)
    threading.Timer(1.5, go.set).start()
    with held(full, "ann", "a restore"):
        assert latest(full)["ended_because"] == rules.RESTORING
    running.join()


@pytest.mark.parametrize("field", [{"archive": True}, {"rows_per_run": 4_000_000}, {"minutes_per_run": 7}, {"age": "80d"}])
def test_a_run_whose_rules_are_changed_ends_and_the_next_obeys_them(full: Engine, field: dict[str, Any]) -> None:
    set_rule(full, batch_rows=1)
    report = run_policy(full, POLICY, by="t", progress=lambda _: set_rule(full, **field))
    assert report.why == "its rules were changed"
    assert 0 < report.rows < 2000
    set_rule(full, batch_rows=None, archive=None)
    assert run_policy(full, POLICY, by="t").rows == 2000 - report.rows


def test_a_row_that_the_api_holds_waits_for_the_next_run_which_says_so(full: Engine) -> None:
    with full.connect() as api:
        api.execute(text("UPDATE chat_notifications SET title = 'held' WHERE id = 7"))
        report = run_policy(full, POLICY, by="t")
        api.commit()
    assert (report.rows, report.skipped, report.finished) == (1999, 1, True)
    assert latest(full)["ended_because"] == report.why == "finished; locked or referred to, left for the next run: 1"
    assert run_policy(full, POLICY, by="t").rows == 1


def test_a_run_that_fails_still_says_how_long_it_was_held_back(full: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHES_MOST_RUNNING", "1")
    get_settings.cache_clear()
    busy = [threading.Thread(target=sleep_on_the_server, args=(full, 3)) for _ in range(3)]
    for each in busy:
        each.start()
    with pytest.raises(RunFailedError):
        run_policy(full, POLICY, by="t", progress=lambda now: cut(full) if now.held_seconds else None)
    get_settings.cache_clear()
    for each in busy:
        each.join()
    assert latest(full)["held_seconds"] > 0


def test_a_worker_that_shuts_down_ends_its_run_after_the_batch(full: Engine) -> None:
    report = run_policy(full, POLICY, by="t", stop=lambda: len(ids(full, "chat_notifications")) < 2010)
    assert report.why == "asked to stop"
    assert 0 < report.rows < 2000


def test_it_runs_only_in_its_hours_unless_told_otherwise(full: Engine) -> None:
    with full.connect() as connection:
        hour = connection.execute(text("SELECT HOUR(NOW() + INTERVAL 2 HOUR)")).scalar_one()
    set_rule(full, hours=f"{hour}-{(hour + 1) % 24}")
    report = run_policy(full, POLICY, by="t")
    assert (report.started, report.why) == (False, f"outside its hours, {hour}-{(hour + 1) % 24} UTC")
    assert run_policy(full, POLICY, by="t", any_hour=True).rows == 2000


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"age": "'9s'"}, r"age: 9s is taken for a mistake; the least for read_notifications is 1 day"),
        ({"age": "'ninety'"}, r"row read_notifications: age: 'ninety' is no age"),
        ({"hours": "'25-3'"}, r"hours: '25-3' is no window"),
        ({"batch_rows": "-1"}, r"batch_rows: Input should be greater than or equal to 1"),
    ],
)
def test_what_an_operator_wrote_by_mistake_deletes_nothing(full: Engine, fields: dict[str, str], sentence: str) -> None:
    with full.begin() as connection:
        for column, value in fields.items():
            row = f"worker_retention_policies (name, {column}) VALUES ('{POLICY.name}', {value})"
            connection.execute(text(f"INSERT INTO {row}"))
    with pytest.raises(RuleError, match=sentence):
        run_policy(full, POLICY, by="t")
    assert len(ids(full, "chat_notifications")) == 2010


def test_the_table_goes_before_the_default(full: Engine) -> None:
    set_rule(full, age="200d")
    with full.connect() as connection:
        now = rules.read(connection, POLICY)
    assert (now.age.days, now.minutes_per_run) == (200, 20)
    assert (now.sources["age"], now.sources["hours"]) == ("table", "default")


PROGRAM = """
from db.engine import get_engine
from tasks.retention.policies import POLICIES
from tasks.retention.run import run_policy
print(run_policy(get_engine(), POLICIES["read_notifications"], by="victim", progress=lambda _: print("batch", flush=True)))
"""


@pytest.mark.parametrize("attempt", range(3))
def test_a_run_that_is_killed_and_started_again_ends_with_exactly_the_right_rows(full: Engine, attempt: int) -> None:
    chance = random.Random(attempt)
    set_rule(full, batch_rows=2)
    victim = subprocess.Popen([sys.executable, "-c", PROGRAM], env=os.environ, stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    for _ in range(chance.randint(1, 30)):
        assert victim.stdout.readline() == "batch\n"
    time.sleep(chance.random() * 0.01)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    gone = 2010 - len(ids(full, "chat_notifications"))
    assert 0 < gone < 2000
    deadline = time.monotonic() + 20  # the server takes a moment to see that the session is gone
    while not (report := run_policy(full, POLICY, by="next")).started:
        assert time.monotonic() < deadline
    assert ids(full, "chat_notifications") == list(range(2001, 2011))
    with full.connect() as connection:
        second, first = ledger.history(connection, POLICY.name, 2)
    assert (first["ended_because"], second["ended_because"]) == ("died", "finished")
    assert first["rows_done"] + second["rows_done"] == 2000
    assert report.rows == second["rows_done"]


def test_a_run_that_loses_its_lock_stops_and_the_next_goes_on(full: Engine) -> None:
    set_rule(full, batch_rows=50)
    with pytest.raises(RunFailedError, match="read_notifications failed: "):
        run_policy(full, POLICY, by="t", progress=lambda _: cut(full))
    assert latest(full)["ended_because"].startswith("failed: ")
    with hold(full, ledger.lock_of(POLICY.name)):
        pass
    run_policy(full, POLICY, by="t")
    assert ids(full, "chat_notifications") == list(range(2001, 2011))


def test_the_workers_own_tables_are_kept_for_their_time(chat: Engine) -> None:
    with chat.begin() as connection:
        for days in (1, 29, 31, 500):
            moment = f"NOW() - INTERVAL {days} DAY"
            connection.execute(
                text(f"INSERT INTO worker_delivery_history (notification_id, settled_at, status) VALUES (1, {moment}, 'X')")
            )
            for outcome in ("sent", "failed"):
                connection.execute(
                    text(f"INSERT INTO worker_delivery_counts VALUES ({moment}, 'fcm', 'default', '{outcome}', '', 3)")
                )
        connection.execute(
            text(
                "INSERT INTO worker_dead_devices VALUES ('fcm:1', 'fcm', 'default', 't', 1, 1, 'gone', NOW() - INTERVAL 9 YEAR)"
            )
        )
        for ended in ("NOW()", "NULL"):
            connection.execute(
                text(
                    "INSERT INTO worker_retention_runs (policy, started_at, started_by, ended_at, rule, cutoff)"
                    f" VALUES ('x', NOW() - INTERVAL 401 DAY, 'x', {ended}, '', NOW())"
                )
            )
    rows = {
        name: run_policy(chat, POLICIES[name], by="t").rows
        for name in ("delivery_history", "delivery_counts", "retention_runs")
    }
    assert rows == {"delivery_history": 2, "delivery_counts": 2, "retention_runs": 1}
    with chat.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM worker_dead_devices")).scalar() == 1


def test_an_api_session_in_another_time_zone_does_not_move_the_cutoff(chat: Engine) -> None:
    parents(chat)
    with chat.connect() as api:
        api.execute(text("SET time_zone = '-11:00'"))
        notification(api, 1, created="NOW() - INTERVAL 90 DAY - INTERVAL 1 HOUR")
        notification(api, 2, created="NOW() - INTERVAL 90 DAY + INTERVAL 1 HOUR")
        api.commit()
        api.execute(text("SET time_zone = '+00:00'"))
    run_policy(chat, POLICY, by="t")
    assert ids(chat, "chat_notifications") == [2]


def test_rows_that_another_table_refers_to_stay_and_the_rest_goes(full: Engine) -> None:
    with full.begin() as connection:
        connection.execute(
            text("CREATE TABLE push_log (id INT PRIMARY KEY, FOREIGN KEY fk_log (id) REFERENCES chat_notifications (id))")
        )
        connection.execute(text("INSERT INTO push_log VALUES (7), (8), (1999)"))
    try:
        plan = preview.plan(full, POLICY, seconds=10)
        assert "purging chat_notifications leaves the rows that push_log refers to" in plan.foreign_keys[0]
        report = run_policy(full, POLICY, by="test")
        assert (report.rows, report.skipped, report.finished) == (1997, 3, True)
        assert report.why == "finished; locked or referred to, left for the next run: 3"
        assert ids(full, "chat_notifications", "is_read") == [7, 8, 1999]
    finally:
        with full.begin() as connection:
            connection.execute(text("DROP TABLE push_log"))


@pytest.mark.parametrize(
    ("because", "started", "due"),
    [
        ("finished", "CURRENT_DATE + INTERVAL :hour HOUR", False),
        ("its time is up", "CURRENT_DATE + INTERVAL :hour HOUR", False),
        ("failed: lost connection", "CURRENT_DATE + INTERVAL :hour HOUR", True),
        ("finished", "CURRENT_DATE + INTERVAL :hour HOUR - INTERVAL 1 SECOND", True),
        ("finished", "NOW() + INTERVAL 10 YEAR", True),
    ],
)
def test_a_policy_is_due_once_a_day_from_its_first_hour_on(full: Engine, because: str, started: str, due: bool) -> None:
    with full.begin() as connection:
        hour = connection.execute(text("SELECT HOUR(NOW())")).scalar_one()
        connection.execute(
            text(
                "INSERT INTO worker_retention_runs (policy, started_by, started_at, ended_at, ended_because, rule, cutoff)"
                f" VALUES (:policy, 'beat', {started}, NOW(3), :because, '', NOW())"
            ),
            {"policy": POLICY.name, "because": because, "hour": hour},
        )
        assert ledger.is_due(connection, POLICY, hour) == due
        yesterday = due and "SECOND" not in started  # where the window began an hour that has not come yet
        assert ledger.is_due(connection, POLICY, (hour + 2) % 24) == yesterday


def test_a_run_that_cannot_begin_is_in_the_history(full: Engine) -> None:
    """As behind an ALTER of the API, which would have the test wait for ten seconds."""
    with full.begin() as connection:
        connection.execute(text("RENAME TABLE chat_notifications TO chat_notifications_away"))
    try:
        with pytest.raises(RunFailedError, match="doesn't exist"):
            run_policy(full, POLICY, by="test")
    finally:
        with full.begin() as connection:
            connection.execute(text("RENAME TABLE chat_notifications_away TO chat_notifications"))
    assert latest(full)["ended_because"].startswith("failed: ")
