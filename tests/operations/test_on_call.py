"""docs/operations.md answers each question of an on-call person by a command, a page and a metric that there are."""

import re
from typing import Any

from devstack.folder import PROJECT
from tasks.facts import Counter
from tests.cli.test_audit import commands
from workers.cli import cli
from workers.operations.snapshot import FACTS, TABLES

PAGE = (PROJECT / "docs" / "operations.md").read_text()
CHAPTER = PAGE.partition("## What an on-call person asks")[2].partition("\n## ")[0]
QUESTIONS = [line.strip("| ").split(" | ") for line in CHAPTER.splitlines() if line.startswith("| ")][1:]
TITLES = [table.title for tables in TABLES.values() for table in tables if table.title]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_no_cell_is_empty() -> None:
    assert len(QUESTIONS) > 20
    assert [row for row in QUESTIONS if len(row) != 4 or not all(re.search(r"\w", cell) for cell in row)] == []


def test_each_command_metric_and_part_of_the_status_page_is_there() -> None:
    known = {path for path, _ in commands(cli)}
    words: list[Any] = [re.sub(r" (ID|QUEUE|infected)$", "", name) for row in QUESTIONS for name in quoted(row[1])]
    assert {*words} <= known
    metrics = {
        f"{fact.name}_total" if isinstance(fact, Counter) or getattr(fact, "is_counter", False) else fact.name for fact in FACTS
    } | {"ALERTS"}
    assert {name for row in QUESTIONS for name in quoted(row[3])} <= metrics
    parts = [part.strip() for row in QUESTIONS for part in re.findall(r"`/status`: ([^;|]+)", row[2])]
    named = [name for part in parts for name in part.split(", ") if name[0].isupper()]
    assert [name for name in named if not any(title.startswith(name) for title in TITLES)] == []
