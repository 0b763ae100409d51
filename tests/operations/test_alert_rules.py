"""Each alert fires when its condition has lasted, not before and not for others; and each has its section in the runbook."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from sqlalchemy import Engine

from devstack.folder import PROJECT
from devstack.programs import ensure, find
from tasks import counters
from tasks.counters import METRICS, Counter
from tasks.notifications import journal
from tasks.notifications.outcome import Kind, Outcome
from workers.operations.counters import metrics
from workers.operations.exposition import exposition
from workers.operations.picture import Picture

RULES = PROJECT / "deploy/prometheus/alerts.yml"
DASHBOARD = PROJECT / "deploy/grafana/chat-workers.json"
RUNBOOK = PROJECT / "docs/runbook.md"

Rule = dict[str, Any]
(GROUP,) = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, Rule] = {rule["alert"]: rule for rule in GROUP["rules"]}


@pytest.fixture(scope="module")
def promtool() -> str:
    ensure(["tests"])
    return find("promtool")


# Alert: the series a minute apart (after chat_workers_), when it fires, the labels that it then has, when it does not yet.
CASES: dict[str, tuple[dict[str, str], str, dict[str, str], str]] = {
    "ChatWorkersGatewayDown": ({'up{job="chat-workers"}': "0x10"}, "5m", {}, "1m"),
    "ChatWorkersCollectorDown": (
        {'collector_up{collector="queues"}': "0x10", 'collector_up{collector="notifications"}': "1x10"},
        "5m",
        {"collector": "queues"},
        "0m",
    ),
    "ChatWorkersBacklogOld": ({"notifications_oldest_pending_age_seconds": "0 60 130+60x10"}, "6m", {}, "0m"),
    "ChatWorkersRetriesOverdue": (
        {
            'deliveries_oldest_due_age_seconds{waiting_on="nothing"}': "130+60x10",
            'deliveries_oldest_due_age_seconds{waiting_on="fcm"}': "9000x10",
        },
        "5m",
        {},
        "0m",
    ),
    "ChatWorkersMessagesRejected": ({"messages_kept": "0 1x10"}, "3m", {}, "1m"),
    "ChatWorkersBreakerOpen": (
        {'provider_breaker_open{provider="fcm"}': "1x10", 'provider_breaker_open{provider="apns"}': "0x10"},
        "5m",
        {"provider": "fcm"},
        "0m",
    ),
    "ChatWorkersDeliveriesFailing": (
        {
            'deliveries_total{provider="fcm",outcome="sent",reason=""}': "0+60x30",
            'deliveries_total{provider="fcm",outcome="dead",reason="fcm 404"}': "0+10x30",
            'deliveries_total{provider="fcm",outcome="unavailable",reason="fcm 503"}': "0+30x30",
        },
        "20m",
        {"provider": "fcm"},
        "0m",
    ),
    "ChatWorkersSendSlow": (
        {
            'delivery_send_seconds_bucket{provider="fcm",le="2.5"}': "0+10x30",
            'delivery_send_seconds_bucket{provider="fcm",le="5.0"}': "0+100x30",
            'delivery_send_seconds_bucket{provider="fcm",le="+Inf"}': "0+100x30",
        },
        "25m",
        {"provider": "fcm"},
        "0m",
    ),
    "ChatWorkersQueueWithoutWorker": (
        {'queue_consumers{queue="backups"}': "0x10", 'queue_consumers{queue="notifications"}': "1x10"},
        "5m",
        {"queue": "backups"},
        "0m",
    ),
    "ChatWorkersQueueStuck": (
        {'queue_oldest_message_age_seconds{queue="backups"}': "310+60x10"},
        "5m",
        {"queue": "backups"},
        "0m",
    ),
    "ChatWorkersStrayMessages": (
        {'queue_messages{queue="celery"}': "3x10", 'queue_messages{queue="backups"}': "3x10"},
        "8m",
        {},
        "0m",
    ),
    "ChatWorkersWorkerLost": (
        {'worker_up{worker="backups@one"}': "1 1 0x10", 'worker_up{worker="backups@two"}': "1x12"},
        "6m",
        {"worker": "backups@one"},
        "0m",
    ),
    "ChatWorkersTasksFailing": (
        {
            'tasks_total{task="tasks.backups.daily",outcome="failed"}': "0+1x20",
            'tasks_total{task="tasks.backups.daily",outcome="succeeded"}': "0+9x20",
        },
        "15m",
        {"task": "tasks.backups.daily", "outcome": "failed"},
        "0m",
    ),
    "ChatWorkersBeatDown": (
        {"beat_up": "1 0x10", 'beat_entry_late_seconds{entry="notifications-drain"}': "0+60x10"},
        "5m",
        {},
        "0m",
    ),
    "ChatWorkersBeatLate": (
        {"beat_up": "1x10", 'beat_entry_late_seconds{entry="notifications-drain"}': "0+60x10"},
        "6m",
        {"entry": "notifications-drain"},
        "0m",
    ),
    "ChatWorkersBeatEntryUnknown": (
        {'beat_entry_known{entry="backups-drill"}': "0x10"},
        "8m",
        {"entry": "backups-drill"},
        "0m",
    ),
    "ChatWorkersScansOverdue": (
        {
            'attachments_oldest_due_age_seconds{lane="uploads"}': "310+60x10",
            'attachments_oldest_due_age_seconds{lane="re-scans"}': "9000x10",
        },
        "5m",
        {},
        "0m",
    ),
    "ChatWorkersAttachmentsUnverified": (
        {'attachments{verdict="unverified"}': "2x20", 'attachments{verdict="clean"}': "200x20"},
        "15m",
        {},
        "0m",
    ),
    "ChatWorkersInfectedUpload": (
        {'scans_total{verdict="infected"}': "0 0 1x15", 'scans_total{verdict="clean"}': "0+9x15"},
        "5m",
        {},
        "0m",
    ),
    "ChatWorkersBackupStale": (
        {
            'backup_last_success_timestamp_seconds{backup="daily",tier="none"}': "0x3000",
            'backup_last_success_timestamp_seconds{backup="weekly",tier="none"}': "0x3000",
        },
        "27h",
        {"backup": "daily"},
        "26h",
    ),
    "ChatWorkersBackupFailed": (
        {
            'backup_last_run_failed{backup="drill",tier="weekly"}': "1x10",
            'backup_last_run_failed{backup="daily",tier="none"}': "0x10",
        },
        "8m",
        {"backup": "drill", "tier": "weekly"},
        "0m",
    ),
    "ChatWorkersRetentionFailed": (
        {'retention_last_run_failed{policy="read_notifications"}': "1x10"},
        "8m",
        {"policy": "read_notifications"},
        "0m",
    ),
}


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == ALERTS.keys()


def full(name: str) -> str:
    return name if name.startswith("up") else f"chat_workers_{name}"


def rule_test(alert: str, tmp_path: Path) -> Path:
    series, fires, labels, not_yet = CASES[alert]
    rule = ALERTS[alert]
    expected = {"exp_labels": {**labels, **rule["labels"]}}
    case = {
        "interval": "1m",
        "input_series": [{"series": full(name), "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": not_yet, "alertname": alert, "exp_alerts": []},
            {"eval_time": fires, "alertname": alert, "exp_alerts": [expected]},
        ],
    }
    # What the annotations say is no part of it: they hold the value of the moment.
    bare = {**rule, "annotations": {}}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "bare", "rules": [bare]}]}))
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [case]}))
    return path


@pytest.mark.parametrize("alert", ALERTS)
def test_it_fires_once_its_condition_has_lasted(promtool: str, tmp_path: Path, alert: str) -> None:
    ran = subprocess.run([promtool, "test", "rules", rule_test(alert, tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def fail_a_delivery() -> None:
    journal.count("fcm", Outcome(Kind.SENT), 0.1)
    journal.count("fcm", Outcome(Kind.UNAVAILABLE, "fcm 503 UNAVAILABLE"), 0.1)


# Alert: one event, how many of them happen within a minute, and in how many minutes.
FIRST_EVENTS: dict[str, tuple[Callable[[], None], int, int]] = {
    "ChatWorkersInfectedUpload": (lambda: counters.add(counters.SCANS, "infected"), 1, 1),
    "ChatWorkersTasksFailing": (lambda: counters.add(counters.TASKS, "tasks.backups.daily", "failed"), 3, 1),
    "ChatWorkersDeliveriesFailing": (fail_a_delivery, 30, 10),
}


@pytest.mark.parametrize("alert", FIRST_EVENTS)
def test_it_fires_for_the_first_events_ever(promtool: str, redis: Redis, tmp_path: Path, alert: str) -> None:
    """The series are those that the gateway shows of an empty Redis, and shows again after each minute's events."""
    event, times, minutes = FIRST_EVENTS[alert]
    counters._forget_the_parents_increments()
    counters.flush_to(lambda: redis)
    scrapes = [shown(redis)] * 5
    for _ in range(minutes):
        for _ in range(times):
            event()
        counters.flush(at_once=True)
        scrapes.append(shown(redis))
    scrapes += [scrapes[-1]] * 10
    asked = names(ALERTS[alert]["expr"])
    series = [
        {"series": name, "values": " ".join("_" if name not in scrape else f"{scrape[name]:g}" for scrape in scrapes)}
        for name in sorted({name for scrape in scrapes for name in scrape})
        if name.partition("{")[0] in asked
    ]
    bare = {**ALERTS[alert], "annotations": {}}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "bare", "rules": [bare]}]}))
    # One that fires makes a sample of ALERTS, whatever its labels.
    fires = {
        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
        "eval_time": f"{5 + minutes}m",
        "exp_samples": [{"labels": "{}", "value": 1}],
    }
    case = {"interval": "1m", "input_series": series, "promql_expr_test": [fires]}
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [case]}))
    ran = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def shown(redis: Redis) -> dict[str, float]:
    """Return the counters as a scrape has them, by series."""
    found = {}
    for family in metrics(counters.read(redis)):
        for sample in family.samples:
            labels = ",".join(f'{name}="{text}"' for name, text in sample.labels.items())
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_the_rules_are_sound(promtool: str) -> None:
    ran = subprocess.run([promtool, "check", "rules", "--lint=all", RULES], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_has_a_section_in_the_runbook_and_each_section_an_alert() -> None:
    text = RUNBOOK.read_text()
    sections = re.findall(r"^## (ChatWorkers\w+)$", text, re.MULTILINE)
    assert sorted(sections) == sorted(ALERTS)
    for alert, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
        section = text.partition(f"## {alert}\n")[2].partition("\n## ")[0]
        assert [word for word in ("**Means.**", "**Look.**", "**Do.**") if word not in section] == [], alert


def test_each_trouble_of_the_page_has_an_alert() -> None:
    named = {
        name
        for path in (PROJECT / "workers/operations").glob("*.py")
        for name in re.findall(r'"(ChatWorkers\w+)"', path.read_text())
    }
    assert named
    assert named <= ALERTS.keys()


def names(promql: str) -> set[str]:
    return set(re.findall(r"chat_workers_\w+", promql))


def test_rules_and_dashboard_ask_for_metrics_that_exist(
    chat: Engine, redis: Redis, look: Callable[[], Picture], promtool: str
) -> None:
    text = exposition(look()).decode()
    there = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    counted = {metric.name for metric in METRICS if isinstance(metric, Counter)}
    assert {f"chat_workers_{name}_total" for name in counted} <= there
    there |= {f"chat_workers_{m.name}_bucket" for m in METRICS if not isinstance(m, Counter)}
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 30
    asked = set().union(*map(names, [*expressions, *(rule["expr"] for rule in ALERTS.values())]))
    assert asked - there == set()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    linted = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
