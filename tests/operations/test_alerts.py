"""Each condition that an operator must hear of is a sentence on the page and an alert of Prometheus, both made from one row."""

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from devstack.folder import PROJECT
from devstack.programs import ensure, find
from tasks import counters
from tasks.attachments.facts import SCANS
from tasks.notifications.facts import DELIVERED_SECONDS, SEND_SECONDS
from tests.operations.conftest import NOTIFICATION, Execute, Look
from workers.messages import rejected
from workers.messages.read import DEFECTS, RefusedError
from workers.operations import fleet
from workers.operations.alerts import rules
from workers.operations.exposition import exposition
from workers.operations.snapshot import FACTS
from workers.operations.worker_signals import EXPIRED, RUNS

RULES = PROJECT / "deploy/prometheus/alerts.yml"
RUNBOOK = PROJECT / "docs/runbook.md"
(GROUP,) = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}

Cause = Callable[[Execute, Redis], None]


@pytest.fixture(scope="module")
def promtool() -> str:
    ensure(["tests"])
    return find("promtool")


def test_the_rules_are_those_that_the_facts_make() -> None:
    assert RULES.read_text() == rules(FACTS), "run: chat-workers alerts > deploy/prometheus/alerts.yml"


def test_the_rules_are_sound(promtool: str) -> None:
    ran = subprocess.run([promtool, "check", "rules", "--lint=all", RULES], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_has_a_section_in_the_runbook_and_each_section_an_alert() -> None:
    text = RUNBOOK.read_text()
    assert sorted(re.findall(r"^## (ChatWorkers\w+)$", text, re.MULTILINE)) == sorted(ALERTS)
    for alert, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
        section = text.partition(f"## {alert}\n")[2].partition("\n## ")[0]
        assert [word for word in ("**Means.**", "**Look.**", "**Do.**") if word not in section] == [], alert


def old_backlog(execute: Execute, _redis: Redis) -> None:
    execute(NOTIFICATION, id=1, status="PENDING", age=600)


def overdue_retries(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_deliveries (notification_id, due_at) VALUES (1, NOW(3) - INTERVAL 5 MINUTE)")


def open_breaker(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_providers (provider, opened_at, reason) VALUES ('fcm', NOW(3) - INTERVAL 130 SECOND, 'fcm 503')"
    )


def paused_delivery(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_pauses (what, paused_at, paused_by, why)"
        " VALUES ('', NOW(3) - INTERVAL 3 HOUR, 'ana@ops', 'wrong link')"
    )


def failing_deliveries(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_delivery_counts (minute, provider, outcome, reason, devices)"
        " VALUES (DATE_FORMAT(NOW(), '%%Y-%%m-%%d %%H:%%i:00'), 'fcm', 'sent', '', 60),"
        " (DATE_FORMAT(NOW(), '%%Y-%%m-%%d %%H:%%i:00'), 'fcm', 'unavailable', 'fcm 503', 40)"
    )


def overdue_scans(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_scans (attachment_id, due_at) VALUES (1, NOW(3) - INTERVAL 10 MINUTE)")


def unverified(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_scans (attachment_id, verdict) VALUES (2, 'unverified')")


def old_backup(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_backup_runs (job, outcome, milliseconds, ended_at)"
        " VALUES ('daily', 'done', 1, NOW(3) - INTERVAL 3 DAY)"
    )


def no_backup_yet(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_backup_runs (job, outcome, milliseconds) VALUES ('weekly', 'running', 1)")


def failed_backup(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_backup_runs (job, outcome, milliseconds, detail) VALUES ('restore', 'failed', 1, 'disk full')")


def failed_retention(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_retention_runs (policy, started_by, ended_at, ended_because, rule, cutoff)"
        " VALUES ('read_notifications', 'beat', NOW(3), 'failed: lost connection', 'x', NOW())"
    )


def stale_retention(execute: Execute, _redis: Redis) -> None:
    execute(
        "REPLACE INTO worker_retention_policies (name, age, updated_at)"
        " VALUES ('read_notifications', 'ten days', NOW(3) - INTERVAL 5 DAY)"
    )


def waiting_events(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_events (type, data, happened_at, reason)"
        " VALUES ('x', '{}', NOW(3) - INTERVAL 20 MINUTE, 'status 500')"
    )


def no_consumer(_execute: Execute, redis: Redis) -> None:
    fleet.announce(redis, "all@test", {"queues": ["housekeeping"]})


def stuck_queue(_execute: Execute, redis: Redis) -> None:
    redis.lpush("notifications", orjson.dumps({"headers": {"sent_at": time.time() - 900}, "properties": {"delivery_tag": "x"}}))


def stray_message(_execute: Execute, redis: Redis) -> None:
    redis.lpush("celery", b"{}")


def lost_worker(_execute: Execute, redis: Redis) -> None:
    fleet.announce(redis, "other@test", {})
    redis.delete("chat-workers:worker:other@test")


def no_beat(_execute: Execute, redis: Redis) -> None:
    redis.delete("chat-workers:beat::lock")


def late_beat(_execute: Execute, redis: Redis) -> None:
    meta = {"last_run_at": {"__type__": "datetime", "year": 2026, "month": 1, "day": 1, "hour": 0, "minute": 0}}
    redis.hset("chat-workers:beat:notifications-drain", "meta", orjson.dumps(meta))


def another_clock(_execute: Execute, redis: Redis) -> None:
    redis.set(f"{fleet.ALIVE}clock@test", orjson.dumps({"at": time.time() - 600}))
    redis.zadd(fleet.NAMES, {"clock@test": time.time()})


def two_of_one_name(_execute: Execute, redis: Redis) -> None:
    redis.set(f"{fleet.ALIVE}twice@test", orjson.dumps({"worker_name_shared": True}))
    redis.zadd(fleet.NAMES, {"twice@test": time.time()})


def another_version(_execute: Execute, redis: Redis) -> None:
    fleet.announce(redis, "old@test", {"version": "0.0.9"})


def unknown_entry(_execute: Execute, redis: Redis) -> None:
    redis.delete("chat-workers:beat:typing-indicators-expire")


def broken_part(_execute: Execute, redis: Redis) -> None:
    redis.set("unacked", "x")


def slow_answers(_execute: Execute, _redis: Redis) -> None:
    for _ in range(20):
        counters.observe(SEND_SECONDS, "fcm", seconds=4.0)


def late_pushes(_execute: Execute, _redis: Redis) -> None:
    for _ in range(20):
        counters.observe(DELIVERED_SECONDS, "fcm", seconds=8.0)


def failing_tasks(_execute: Execute, _redis: Redis) -> None:
    counters.add(RUNS, "tasks.backups.daily", "failed", amount=3)


def expired_messages(_execute: Execute, _redis: Redis) -> None:
    counters.add(EXPIRED, "tasks.notifications.drain", amount=3)


def infected(_execute: Execute, _redis: Redis) -> None:
    counters.add(SCANS, "infected")


def refused_message(_execute: Execute, redis: Redis) -> None:
    rejected.keep(redis, "notifications", b"{}", RefusedError(next(iter(DEFECTS))))


@pytest.mark.usefixtures("well")
def test_where_all_is_well_nothing_is_said(look: Look) -> None:
    assert look().troubles() == []


# Alert: what causes it, and words of its sentence.
CAUSES: dict[str, tuple[Cause, str]] = {
    "ChatWorkersCollectorDown": (broken_part, "What lies in queues cannot be read: WRONGTYPE"),
    "ChatWorkersBacklogOld": (old_backlog, "The oldest notification has waited to be sent for 10 min; 1 waiting."),
    "ChatWorkersRetriesOverdue": (overdue_retries, "due for another try for 5 min; 1 due."),
    "ChatWorkersBreakerOpen": (open_breaker, "Nothing is sent to fcm for 2 min: fcm 503."),
    "ChatWorkersDeliveryPaused": (paused_delivery, "paused the sending to all for 3 h: ana@ops, wrong link."),
    "ChatWorkersDeliveriesFailing": (failing_deliveries, "40% of the messages of ten minutes to fcm failed."),
    "ChatWorkersSendSlow": (slow_answers, "One answer in twenty of fcm takes longer than 4.9 s."),
    "ChatWorkersDeliveryLate": (late_pushes, "One message in twenty reaches fcm later than 9.8 s after its row."),
    "ChatWorkersQueueWithoutWorker": (no_consumer, "No worker takes from the queue notifications; 0 waiting in it."),
    "ChatWorkersQueueStuck": (stuck_queue, "A message has waited in the queue notifications for 15 min; 1 waiting in it."),
    "ChatWorkersStrayMessages": (stray_message, "which nobody reads, for a producer names no queue: 1."),
    "ChatWorkersMessagesRejected": (
        refused_message,
        "kept for an operator (`chat-workers messages list`): 1.",
    ),
    "ChatWorkersWorkerLost": (lost_worker, "Gone silent without having been stopped: other@test."),
    "ChatWorkersTasksFailing": (failing_tasks, "tasks.backups.daily: 3 runs failed within 15 minutes."),
    "ChatWorkersTasksExpiring": (expired_messages, "tasks.notifications.drain: 3 messages expired within 15 minutes."),
    "ChatWorkersBeatDown": (no_beat, "nothing is started by the schedule"),
    "ChatWorkersBeatLate": (late_beat, "does not send what is due: notifications-drain."),
    "ChatWorkersBeatEntryUnknown": (unknown_entry, "is not this host's for typing-indicators-expire: unknown to beat;"),
    "ChatWorkersClockOff": (another_clock, "The clock of clock@test is 10 min off Redis's (10 min behind)."),
    "ChatWorkersVersionsDiffer": (another_version, "Of another version than the gateway: old@test (0.0.9)."),
    "ChatWorkersWorkerNameShared": (two_of_one_name, "Two workers have one name, so that only one is seen: twice@test."),
    "ChatWorkersScansOverdue": (overdue_scans, "waited for their scan for 10 min and are not served meanwhile; 1 waiting."),
    "ChatWorkersAttachmentsUnverified": (unverified, "Attachments that could not be scanned and stay blocked: 1."),
    "ChatWorkersInfectedUpload": (infected, "whose uploaders are worth knowing: 1."),
    "ChatWorkersBackupStale": (old_backup, "Backups or drills are overdue: daily, last done 3 d ago."),
    "ChatWorkersBackupNotYet": (no_backup_yet, "Not yet done, for the first night is yet to come: weekly."),
    "ChatWorkersBackupFailed": (failed_backup, "The last restore failed (tier: none): disk full."),
    "ChatWorkersRetentionStale": (stale_retention, "read_notifications has not gone through its table for 5 d: unusable:"),
    "ChatWorkersEventsWaiting": (waiting_events, "Events have waited for EVENTS_URL for 20 min; 1 waiting: status 500."),
    "ChatWorkersRetentionFailed": (failed_retention, "read_notifications did not end well: it failed: lost connection."),
}


def test_every_alert_but_one_has_a_cause() -> None:
    """GatewayDown only Prometheus can judge."""
    assert CAUSES.keys() == ALERTS.keys() - {"ChatWorkersGatewayDown"}


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("alert", CAUSES)
def test_each_condition_is_one_sentence_and_one_alert(
    look: Look, execute: Execute, redis: Redis, promtool: str, tmp_path: Path, alert: str
) -> None:
    """The alert fires once what /metrics says has lasted, from the first event ever on, and no other does."""
    cause, words = CAUSES[alert]
    before = exposition(look()).decode()
    cause(execute, redis)
    counters.flush(at_once=True)
    found = look()
    (trouble,) = found.troubles()
    assert (trouble.alert, trouble.severity) == (alert, ALERTS[alert]["labels"]["severity"])
    assert words in trouble.sentence
    check(promtool, tmp_path, alert, before, exposition(found).decode())


@pytest.mark.usefixtures("well")
def test_a_gateway_that_answers_nothing_is_an_alert(look: Look, promtool: str, tmp_path: Path) -> None:
    check(promtool, tmp_path, "ChatWorkersGatewayDown", exposition(look()).decode(), "")


@pytest.mark.usefixtures("well")
def test_the_worst_and_most_urgent_is_said_first(look: Look, execute: Execute, redis: Redis) -> None:
    for cause in (unverified, old_backup, overdue_scans, old_backlog):
        cause(execute, redis)
    redis.delete("chat-workers:beat::lock")
    said = [(trouble.severity, trouble.minutes) for trouble in look().troubles()]
    assert said == sorted(said)
    assert {severity for severity, _ in said} == {"critical", "warning"}
    assert len({minutes for severity, minutes in said if severity == "critical"}) > 1


@pytest.mark.usefixtures("well")
def test_rows_of_which_the_same_is_said_share_a_sentence(look: Look, redis: Redis) -> None:
    for number in range(7):
        fleet.announce(redis, f"{number}@test", {})
        redis.delete(f"{fleet.ALIVE}{number}@test")
    (trouble,) = look().troubles()
    assert trouble.sentence == "Gone silent without having been stopped: 0@test, 1@test, 2@test, 3@test, 4@test and 2 more."


def check(promtool: str, folder: Path, alert: str, before: str, after: str) -> None:
    """Have promtool judge five scrapes that say `before` and thirty that say `after`, in which counters go on growing."""
    old, new = series(before), series(after)
    made = [{"series": name, "values": values(name, old.get(name), new.get(name))} for name in sorted(old | new)]
    lasting = int(ALERTS[alert].get("for", "0m").removesuffix("m"))
    firing = 'group by (alertname) (ALERTS{alertstate="firing"})'
    this = [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
    case = {
        "interval": "1m",
        "input_series": made,
        "promql_expr_test": [
            {"expr": firing, "eval_time": f"{4 + lasting}m", "exp_samples": []},
            {"expr": firing, "eval_time": f"{6 + lasting}m", "exp_samples": this},
        ],
    }
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    ran = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def series(text: str) -> dict[str, float]:
    """Return a scrape's values by the series as Prometheus writes it."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{label}"' for name, label in sample.labels.items())
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def values(name: str, old: float | None, new: float | None) -> str:
    first = "_x5" if old is None else f"{old}x4"
    if new is None:
        return f"{first} stale _x29"
    grows = re.match(r"\w+_(total|bucket|count|sum){", name)
    return f"{first} {new}{f'+{new - (old or 0)}' if grows else ''}x30"
