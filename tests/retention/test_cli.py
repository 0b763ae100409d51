"""`chat-workers retention` and `schedule`: what operators see, as JSON and in words, and the exit codes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from redbeat import RedBeatSchedulerEntry
from redis import Redis
from sqlalchemy import Engine, text

from beat_schedule import every
from settings import get_settings
from tasks.audit import who
from tasks.jobs import STARTED_BY
from tasks.retention.policies import POLICIES
from tests.retention.rows import conversation, ids, notifications, parents
from workers.cli import cli

OLD = "NOW() - INTERVAL 91 DAY"


@pytest.fixture(autouse=True)
def _settings_of_its_own() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def full(chat: Engine) -> Engine:
    """A chat with 2500 old notifications that were read."""
    parents(chat)
    with chat.begin() as connection:
        notifications(connection, range(1, 2501), created=OLD)
    return chat


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def run_in_a_process(*arguments: str) -> "subprocess.Popen[str]":
    program = "from workers.cli import main; main()"
    command = [sys.executable, "-c", program, "retention", "run", *arguments, "--json"]
    return subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)


def answer(*arguments: str) -> Any:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_plan_says_how_many_how_old_how_long_and_by_which_index(full: Engine) -> None:
    (found,) = answer("retention", "plan", "--policy", "read_notifications")
    assert found["count"]["rows"] == 2500
    assert found["count"]["complete"]
    assert found["count"]["oldest"] == found["count"]["newest"]
    assert (found["runs"], found["scan_seconds"] > 0, found["seconds"] > found["scan_seconds"]) == (1, True, True)
    assert found["explain"][0]["key"] == "PRIMARY"
    assert len(ids(full, "chat_notifications")) == 2500


def test_a_date_of_zeros_hides_no_plan(full: Engine) -> None:
    with full.begin() as connection:
        connection.execute(text("UPDATE chat_notifications SET created_at = 0 WHERE id = 7"))
        connection.execute(
            text("INSERT INTO typing_indicators (conversation_id, user_id, expires_at) VALUES (1, 1, 0), (1, 2, :old)"),
            {"old": "2020-01-01"},
        )
    plans = {plan["policy"]: plan["count"] for plan in answer("retention", "plan")}
    assert plans["read_notifications"]["rows"] == 2499
    assert (plans["typing_indicators"]["rows"], plans["typing_indicators"]["oldest"]) == (2, "2020-01-01T00:00:00Z")


@pytest.mark.usefixtures("full")
def test_plan_says_how_many_runs_the_limits_make_of_it() -> None:
    call("retention", "policy", "set", "read_notifications", "--rows-per-run", "1000")
    assert answer("retention", "plan", "--policy", "read_notifications")[0]["runs"] == 3
    assert ", in 3 runs" in call("retention", "plan", "--policy", "read_notifications").stdout


def test_plan_waits_for_no_lock_and_takes_none(full: Engine) -> None:
    with full.begin() as api:
        api.execute(text("SELECT id FROM chat_notifications FOR UPDATE"))
        assert answer("retention", "plan", "--policy", "read_notifications")[0]["count"]["rows"] == 2500


def test_a_dry_run_writes_nothing_at_all(full: Engine) -> None:
    assert answer("retention", "run", "--dry-run", "--policy", "read_notifications")[0]["count"]["rows"] == 2500
    assert len(ids(full, "chat_notifications")) == 2500
    assert answer("retention", "history") == []


@pytest.mark.usefixtures("full")
def test_run_says_what_it_did() -> None:
    result = call("retention", "run", "--policy", "read_notifications")
    assert result.exit_code == 0
    assert result.stdout.startswith("read_notifications: deleted 2,500 rows in ")
    (run,) = answer("retention", "history")
    assert (run["rows_done"], run["ended_because"]) == (2500, "finished")


@pytest.mark.usefixtures("full")
def test_run_without_a_name_runs_them_all_and_passes_over_the_disabled() -> None:
    runs = {run["policy"]: run for run in answer("retention", "run")["runs"]}
    assert runs["read_notifications"]["rows"] == 2500
    assert runs["idle_conversations"]["why"] == "disabled"


@pytest.mark.usefixtures("full")
def test_a_named_policy_that_may_not_run_is_exit_code_1() -> None:
    assert answer("retention", "pause", "--policy", "read_notifications")["paused"] == ["read_notifications"]
    result = call("retention", "run", "--policy", "read_notifications")
    assert result.exit_code == 1
    assert "read_notifications: did not run: paused by " in result.stdout
    assert answer("retention", "resume") == {"resumed": ["read_notifications"]}
    assert call("retention", "run", "--policy", "read_notifications").exit_code == 0


@pytest.mark.usefixtures("full")
def test_policies_are_set_and_taken_back() -> None:
    assert (
        call("retention", "policy", "set", "read_notifications", "--age", "120d", "--hours", "1-5", "--disabled").exit_code == 0
    )
    found = {policy["policy"]: policy for policy in answer("retention", "policy", "list")}["read_notifications"]
    assert (found["age"], found["hours"], found["enabled"], found["sources"]["age"]) == ("120d", "1-5", False, "table")
    call("retention", "policy", "set", "read_notifications", "--default", "age", "--default", "hours", "--default", "enabled")
    assert "120d" not in call("retention", "policy", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("policy", "set", "read_notifications", "--age", "1s"), "is taken for a mistake"),
        (("policy", "set", "read_notifications", "--age", "soon"), "is no age"),
        (("policy", "set", "read_notifications", "--age", "999999999d"), "is longer than fifty years"),
        (("policy", "set", "closed_conversations", "--archive"), "deletes nothing that could be archived"),
        (("policy", "set", "read_notifications", "--archive"), "RETENTION_ARCHIVE_DIR is not set"),
        (("policy", "set", "read_notifications"), "nothing to set"),
        (("run", "--policy", "everything"), "'everything' is not one of 'read_notifications'"),
    ],
)
@pytest.mark.usefixtures("chat")
def test_a_mistake_is_a_sentence_and_exit_code_2(arguments: tuple[str, ...], sentence: str) -> None:
    result = call("retention", *arguments)
    assert (result.exit_code, sentence in result.stderr) == (2, True)


def test_ctrl_c_ends_a_run_cleanly_and_the_next_goes_on(full: Engine) -> None:
    with full.begin() as connection:
        connection.execute(text("REPLACE INTO worker_retention_policies (name, batch_rows) VALUES ('read_notifications', 1)"))
    process = run_in_a_process("--policy", "read_notifications")
    while len(ids(full, "chat_notifications")) == 2500:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=90)
    (run,) = json.loads(out)["runs"]
    assert (process.returncode, run["why"]) == (0, "asked to stop")
    assert 0 < run["rows"] < 2500
    call("retention", "policy", "set", "read_notifications", "--default", "batch_rows")
    assert answer("retention", "run", "--policy", "read_notifications")["runs"][0]["rows"] == 2500 - run["rows"]


def test_a_policy_that_is_misconfigured_is_reported_and_the_others_run(full: Engine) -> None:
    with full.begin() as connection:
        connection.execute(text("REPLACE INTO worker_retention_policies (name, archive) VALUES ('read_notifications', 1)"))
        connection.execute(text("REPLACE INTO worker_retention_policies (name, age) VALUES ('closed_conversations', 'soon')"))
        conversation(connection, 7, is_closed="1", closed_at="NOW() - INTERVAL 366 DAY")
        connection.execute(
            text("INSERT INTO worker_delivery_counts VALUES (NOW() - INTERVAL 1 YEAR, 'fcm', 'default', 'sent', '', 1)")
        )
    result = call("retention", "run", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    nowhere, unreadable = found["failures"]
    assert "RETENTION_ARCHIVE_DIR is not set" in nowhere
    assert "'soon' is no age" in unreadable
    assert {run["policy"]: run["rows"] for run in found["runs"]}["delivery_counts"] == 1


def test_a_named_policy_that_ctrl_c_kept_from_starting_is_exit_code_1(full: Engine) -> None:
    with full.begin() as connection:
        connection.execute(text("REPLACE INTO worker_retention_policies (name, batch_rows) VALUES ('read_notifications', 1)"))
    process = run_in_a_process("--policy", "read_notifications", "--policy", "typing_indicators")
    while len(ids(full, "chat_notifications")) == 2500:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=90)
    assert (process.returncode, [run["policy"] for run in json.loads(out)["runs"]]) == (1, ["read_notifications"])


def test_a_value_that_cannot_be_used_hides_no_other_policy(chat: Engine) -> None:
    with chat.begin() as connection:
        connection.execute(text("REPLACE INTO worker_retention_policies (name, hours) VALUES ('scan_events', '1am-5am')"))
    for command in (("policy", "list"), ("plan",), ("run", "--dry-run")):
        result = call("retention", *command, "--json")
        assert result.exit_code == 1
        rows = {row["policy"]: row for row in json.loads(result.stdout)}
        assert rows.keys() == POLICIES.keys()
        assert [name for name, row in rows.items() if "fault" in row] == ["scan_events"]
        assert "'1am-5am' is no window" in result.stderr


@pytest.mark.usefixtures("environment")
def test_a_schedule_entry_is_sent_to_its_queue_now(redis: Redis) -> None:
    sent = answer("schedule", "run", "typing-indicators-expire")
    assert sent["task"] == "tasks.typing_indicators.expire"
    (message,) = redis.lrange("housekeeping", 0, -1)
    assert json.loads(message)["headers"]["task"] == "tasks.typing_indicators.expire"
    assert json.loads(message)["headers"]["expires"] is not None
    assert json.loads(message)["headers"][STARTED_BY] == who()


@pytest.mark.usefixtures("environment", "redis")
def test_the_schedule_is_unknown_until_beat_has_run() -> None:
    from workers.app import app

    result = call("schedule", "list", "--json")
    assert result.exit_code == 1
    assert {row["entry"] for row in json.loads(result.stdout)} == set(app.conf.beat_schedule)
    assert not any(row["beat_entry_known"] for row in json.loads(result.stdout))


@pytest.mark.usefixtures("environment")
def test_what_beat_has_otherwise_than_this_host_is_named_by_the_list(redis: Redis) -> None:
    from workers.app import app

    for name, entry in app.conf.beat_schedule.items():
        RedBeatSchedulerEntry(name, **entry, app=app).save()
    drain = app.conf.beat_schedule["notifications-drain"]
    RedBeatSchedulerEntry("notifications-drain", **{**drain, "schedule": every(9)}, app=app).save()
    RedBeatSchedulerEntry("backups-hourly", "tasks.backups.daily", every(3600), app=app).save()
    redis.sadd("chat-workers:beat::statics", *app.conf.beat_schedule, "backups-hourly")
    redis.set("chat-workers:beat::lock", "held")
    listed = call("schedule", "list")
    assert listed.exit_code == 1
    differences = dict(line.split(maxsplit=1) for line in listed.stdout.partition("differs ")[2].splitlines()[1:])
    assert differences["notifications-drain"].startswith("beat has it every 9 seconds for tasks.notifications.drain")
    assert differences["backups-hourly"].startswith("beat alone has it")


@pytest.mark.usefixtures("environment", "redis")
def test_the_schedule_shows_what_beat_sent_and_what_is_late() -> None:
    """The entries are those that beat's own scheduler stores."""
    from workers.app import app

    for name, entry in app.conf.beat_schedule.items():
        # `next` is what beat calls when it has sent an entry.
        stored = RedBeatSchedulerEntry(name, **entry, app=app).save()
        if name != "retention-notifications":
            stored.next()
    result = call("schedule", "list", "--json")
    rows = {row["entry"]: row for row in json.loads(result.stdout)}
    assert result.exit_code == 0
    assert rows["notifications-drain"]["last"] is not None
    assert rows["retention-notifications"]["last"] is None
    assert rows["retention-notifications"]["next"] is not None

    RedBeatSchedulerEntry.from_key("chat-workers:beat:typing-indicators-expire", app=app).next(
        last_run_at=datetime.now(UTC) - timedelta(minutes=31)
    )
    late = call("schedule", "list")
    assert late.exit_code == 1
    assert "30 min" in late.stdout
