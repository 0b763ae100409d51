"""/metrics, /status as a page and as JSON, `status --json` and the tables of the terminal all say the same rows."""

import json
import re
import subprocess
from collections.abc import Iterator
from html import unescape

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from redis import Redis

from devstack.folder import PROJECT
from devstack.programs import ensure, find
from tasks import counters
from tasks.facts import Row, Table
from tests.operations import test_alerts
from tests.operations.conftest import Execute, Look, samples, value
from workers.cli import cli
from workers.operations.exposition import exposition
from workers.operations.page import page
from workers.operations.snapshot import COUNTED, FACTS, TABLES

DASHBOARD = PROJECT / "deploy/grafana/chat-workers.json"


@pytest.fixture
def full(well: None, execute: Execute, redis: Redis) -> None:
    """Something is wrong in every part, so that each of its tables has rows and no part is beyond reading."""
    for alert, (cause, _) in test_alerts.CAUSES.items():
        if alert not in {"ChatWorkersCollectorDown", "ChatWorkersBeatDown"}:
            cause(execute, redis)
    execute("INSERT INTO worker_pauses (what, paused_by) VALUES ('attachments', 'ana@ops')")  # which alone is no alert
    execute("INSERT INTO worker_audit (who, what, arguments) VALUES ('ana@ops', 'attachments pause', '{}')")
    counters.flush(at_once=True)


def shown(found: dict[str, dict[str, list[Row]]]) -> Iterator[tuple[Table, list[Row]]]:
    for part, tables in TABLES.items():
        for table in tables:
            if not table.on_demand:
                yield table, found[part][table.name]


@pytest.mark.usefixtures("full")
def test_all_that_is_said_comes_from_the_same_rows(look: Look) -> None:
    found = look()
    scraped, html = samples(exposition(found).decode()), unescape(page(found))
    printed = CliRunner().invoke(cli, ["status"]).stdout
    series = 0
    for table, rows in shown({reading.name: reading.value for reading in found.readings}):
        assert rows, f"nothing fills {table.name}"
        for fact in table.facts:
            for row in rows:
                if row.get(fact.name) is not None:
                    labels = {label: row[label] for label in fact.labels or ()}
                    name = f"{fact.name}_total" if fact.is_counter else fact.name
                    assert value(scraped, name, **labels) == row[fact.name]
                    series += 1
        if table.title:
            assert f">{table.title}<" in html
            assert table.title in printed
            for cells in table.cells(rows):
                assert [cell for cell in cells if f">{cell}<" not in html] == []
    counted = {f"chat_workers_{fact.name}_{of}" for fact in COUNTED for of in ("total", "bucket", "count", "sum", "created")}
    others = [name for name, _ in scraped if name not in counted and not name.startswith("chat_workers_collector_")]
    assert len(others) == series + 1  # the gateway's own build_info
    for trouble in found.troubles():
        assert trouble.sentence in html
    assert {trouble.alert for trouble in found.troubles()} == test_alerts.ALERTS.keys() - {
        "ChatWorkersGatewayDown", "ChatWorkersCollectorDown", "ChatWorkersBeatDown",
    }  # fmt: skip


@pytest.mark.usefixtures("full")
def test_programs_are_told_all_of_it(gateway: TestClient, look: Look) -> None:
    """JSON knows fewer kinds of keys and values than rows could have."""
    answered = gateway.get("/status", headers={"Accept": "application/json"}).json()
    printed = json.loads(CliRunner().invoke(cli, ["status", "--json"]).stdout)
    for found in (answered, printed):
        assert found["sections"].keys() == TABLES.keys()
        assert {trouble["alert"] for trouble in found["troubles"]} >= {"ChatWorkersMessagesRejected", "ChatWorkersBackupStale"}
        for table, rows in shown(found["sections"]):
            facts = {fact.name for fact in table.facts}
            assert all(set(table.labels) <= row.keys() for row in rows), table.name
            assert all(row.keys() & facts for row in rows) or not facts, table.name


def test_each_fact_has_one_name_and_says_what_it_is() -> None:
    names = [fact.name for fact in FACTS]
    assert len(names) == len(set(names))
    assert all(fact.help.endswith(".") for fact in FACTS)
    assert len({alert.name for fact in FACTS if (alert := fact.alert)}) == sum(fact.alert is not None for fact in FACTS)


def test_the_dashboard_asks_for_facts_that_exist(look: Look, chat: object, redis: Redis) -> None:
    ensure(["tests"])
    text = exposition(look()).decode()
    there = {f"chat_workers_{fact.name}{suffix}" for fact in FACTS for suffix in ("", "_total", "_bucket")}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(expressions) > 30
    assert {name for expression in expressions for name in re.findall(r"chat_workers_\w+", expression)} - there == set()
    assert len({panel["id"] for panel in panels}) == len(panels)
    linted = subprocess.run([find("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
