"""What operators see of bad messages, and how they play them again."""

import json
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result
from redis import Redis

from tests.messages import samples
from tests.messages.test_envelope import examine
from workers.cli import cli
from workers.messages import rejected
from workers.messages.contract import RefusedError

SECRET = "hunter2-and-more"


@pytest.fixture
def messages(app: "Celery[Any]", redis: Redis) -> Any:
    """Run `chat-workers messages …`."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["messages", *arguments])

    return run


def keep(redis: Redis, element: object, defect: str = "headers.id", queue: str = samples.QUEUE) -> str:
    rejected.keep(redis, queue, samples.raw(element), RefusedError(defect, "it was put here by a test"))
    return next(rejected.kept(redis, 1)).id


def test_kept_messages_are_listed_with_counts(messages: Any, redis: Redis) -> None:
    first = keep(redis, samples.without("headers", "id"))
    second = keep(redis, b"{", "json")
    listed = json.loads(messages("list", "--json").output)
    assert [m["id"] for m in listed["messages"]] == [second, first]
    assert [m["task"] for m in listed["messages"]] == [None, samples.TASK]
    assert listed["refused"] == [
        {"queue": samples.QUEUE, "defect": "headers.id", "count": 1},
        {"queue": samples.QUEUE, "defect": "json", "count": 1},
    ]
    assert rejected.rejected_counts(redis) == {(samples.QUEUE, "headers.id"): 1, (samples.QUEUE, "json"): 1}
    assert first not in messages("list", "--defect", "json").output
    assert "2 kept, 2 refused" in messages("list").output


@pytest.mark.parametrize(
    "element",
    [
        samples.with_(SECRET, "headers", "argsrepr"),
        samples.with_(SECRET, "headers", "task"),
        samples.with_(SECRET, "headers", SECRET),
        samples.body([[SECRET], {SECRET: SECRET}, {}]),
        samples.with_({"text": SECRET}, "body"),
    ],
)
def test_content_is_shown_by_its_size_alone(messages: Any, redis: Redis, element: object) -> None:
    identity = keep(redis, element)
    assert "(16 characters)" in messages("show", identity).output
    assert messages("show", identity, "--raw").stdout_bytes == samples.raw(element)
    for arguments in (("show", identity), ("show", identity, "--json"), ("list",), ("list", "--json"), ("replay", identity)):
        assert SECRET not in messages(*arguments).output


def test_what_is_no_json_is_shown_by_its_first_bytes_escaped(messages: Any, redis: Redis) -> None:
    identity = keep(redis, b"\x1b[2J\x00" + b"x" * 500, "json")
    shown = messages("show", identity).output
    assert r"\x1b[2J\x00xxx" in shown
    assert "x" * 65 not in shown


@pytest.mark.parametrize(
    "element",
    [
        samples.without("headers", "id"),
        samples.with_([1], "headers", "id"),
        samples.without("properties"),
        samples.without("content-type"),
        samples.with_("9999-12-31T23:59:59-12:00", "headers", "expires"),
        samples.body([[], {}]),
        samples.with_([[], {}, {}], "body"),
        samples.with_(json.dumps([[], {}, {}]), "body"),
        {"body": {"task": samples.TASK, "args": [], "kwargs": {}}},
    ],
    ids=[
        "no id",
        "odd id",
        "no properties",
        "no type",
        "expires",
        "body of two",
        "body as JSON",
        "plain body",
        "protocol 1",
    ],
)
def test_what_can_be_read_is_replayed_in_good_form(messages: Any, redis: Redis, app: "Celery[Any]", element: object) -> None:
    identity = keep(redis, element)
    result = messages("replay", identity, "--json")
    replayed = json.loads(result.output)
    assert (result.exit_code, replayed[0]["task"]) == (0, samples.TASK)
    sent = redis.rpop(samples.QUEUE)
    assert isinstance(sent, bytes)
    assert examine(sent, app).id == replayed[0]["task_id"]
    assert rejected.kept_count(redis) == 0
    assert rejected.dropped_count(redis) == 0


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        (samples.with_("tasks.nothing", "headers", "task"), "no worker knows the task"),
        (samples.with_("celery.map", "headers", "task"), "no worker knows the task"),
        (samples.scan("x"), "attachment_id is of another type"),
        (b"{", "not JSON"),
        ({"task": samples.TASK, "args": []}, "its arguments cannot be read"),
        (b"x" * 40_000, "only its first 1024 bytes"),
    ],
)
def test_what_no_worker_can_do_stays_with_a_reason(messages: Any, redis: Redis, element: object, reason: str) -> None:
    identity = keep(redis, element)
    result = messages("replay", identity)
    assert result.exit_code == 1
    assert reason in result.output
    assert rejected.find(redis, identity) is not None
    assert redis.llen(samples.QUEUE) == 0


def test_a_task_on_the_wrong_queue_is_replayed_on_its_own(messages: Any, redis: Redis) -> None:
    identity = keep(redis, samples.message(task="tasks.backups.daily"))
    assert messages("replay", identity).exit_code == 0
    assert (redis.llen(samples.QUEUE), redis.llen("backups")) == (0, 1)


def test_messages_are_discarded_by_id_or_all(messages: Any, redis: Redis) -> None:
    first, *_ = [keep(redis, b"{", "json") for _ in range(3)]
    assert messages("discard", first).exit_code == 0
    again = messages("discard", first)
    assert (again.exit_code, "no longer" in again.output) == (1, True)
    assert messages("discard", "--all").exit_code == 0
    assert rejected.kept_count(redis) == 0
    assert rejected.dropped_count(redis) == 0


@pytest.mark.parametrize("arguments", [("show", "x"), ("discard",), ("discard", "1-1", "--all"), ("list", "--defect", "x")])
def test_bad_usage_is_exit_code_2(messages: Any, arguments: tuple[str, ...]) -> None:
    assert messages(*arguments).exit_code == 2
