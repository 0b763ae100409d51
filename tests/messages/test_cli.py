"""What operators see of the messages that no worker can run."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from tests.messages import samples
from workers.cli import cli
from workers.messages import rejected
from workers.messages.read import RefusedError

SECRET = "hunter2-and-more"


@pytest.fixture
def messages(environment: dict[str, str], redis: Redis) -> Any:
    """Run `chat-workers messages …`."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["messages", *arguments])

    return run


def keep(redis: Redis, element: object, defect: str = "task", queue: str = samples.QUEUE) -> str:
    rejected.keep(redis, queue, samples.raw(element), RefusedError(defect))
    return str(next(rejected.kept(redis, 1))["id"])


def test_kept_messages_are_listed_with_counts_and_without_content(messages: Any, redis: Redis) -> None:
    first = keep(redis, samples.with_(SECRET, "headers", "task"))
    second = keep(redis, b"{" + SECRET.encode(), "json", queue="backups")
    listed = json.loads(messages("list", "--json").output)
    assert [(m["id"], m["queue"], m["defect"]) for m in listed["messages"]] == [
        (second, "backups", "json"),
        (first, samples.QUEUE, "task"),
    ]
    assert listed["refused"] == [
        {"queue": "backups", "defect": "json", "count": 1},
        {"queue": samples.QUEUE, "defect": "task", "count": 1},
    ]
    assert rejected.rejected_counts(redis) == {("backups", "json"): 1, (samples.QUEUE, "task"): 1}
    assert "task: it names no task that a worker knows" in messages("list").output
    assert "2 kept, 2 refused" in messages("list").output
    assert first not in messages("list", "--limit", "1").output
    assert SECRET not in messages("list").output + messages("list", "--json").output


def test_an_entry_that_someone_else_wrote_is_listed_and_discarded(messages: Any, redis: Redis) -> None:
    redis.xadd(rejected.KEPT, {"queue": b"\xff", "size": "many"})
    listed = messages("list")
    assert (listed.exit_code, "1 kept" in listed.output) == (0, True)
    assert messages("discard", "--all").exit_code == 0
    assert redis.xlen(rejected.KEPT) == 0


def test_messages_are_discarded_by_id_or_all(messages: Any, redis: Redis) -> None:
    first, *_ = [keep(redis, b"{", "json") for _ in range(3)]
    assert messages("discard", first).exit_code == 0
    again = messages("discard", first)
    assert (again.exit_code, again.output) == (1, "discarded 0 of 1\n")
    assert json.loads(messages("discard", first, "--json").output) == {"named": 1, "discarded": 0}
    assert messages("discard", "--all").exit_code == 0
    assert redis.xlen(rejected.KEPT) == 0


@pytest.mark.parametrize("arguments", [("discard", "x"), ("discard",), ("discard", "1-1", "--all")])
def test_bad_usage_is_exit_code_2(messages: Any, arguments: tuple[str, ...]) -> None:
    assert messages(*arguments).exit_code == 2
