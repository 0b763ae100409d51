"""What operators see and do, through the command line itself."""

import json
from typing import Any, cast

import pytest
from click.testing import CliRunner
from redis import Redis
from sqlalchemy import text

from devstack.emulators.client import Emulator, Fault
from tasks.notifications import run
from tests.notifications.conftest import Accepted, Chat
from workers.cli import cli


def chat_workers(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def as_json(*arguments: str, code: int = 0) -> Any:
    answer: Any = json.loads(chat_workers(*arguments, "--json", code=code))
    return answer


def test_status_counts_rows_outcomes_and_shows_an_open_breaker(api: Chat, emulator: Emulator) -> None:
    api.notify("phone")
    api.notify(device_tokens="[]")
    run.drain()
    emulator.inject(Fault(kind="permission_denied"))
    api.notify("phone")
    run.drain()
    found = as_json("notifications", "status")
    assert [(row["status"], row["notifications"]) for row in found["backlog"]] == [("PENDING", 0), ("FAILED", 1)]
    assert {(row["outcome"], row["devices"]) for row in found["last_hour"]} == {("sent", 1), ("credentials", 1)}
    [provider] = found["providers"]
    assert provider["provider_breaker_open"] == 1
    assert "PERMISSION_DENIED" in provider["reason"]
    assert "OPEN for" in chat_workers("notifications", "status")


def test_show_tells_a_rows_story_without_tokens_or_content(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unregistered", token="gone-phone"), Fault(kind="unavailable", token="flaky-phone"))
    row = api.notify("good-phone", "gone-phone", "flaky-phone", body="a secret")
    run.drain()
    told = chat_workers("notifications", "show", str(row))
    assert "FAILED" in told
    assert "next try" in told
    for secret in ("good-phone", "gone-phone", "flaky-phone", "a secret"):
        assert secret not in told
    found = as_json("notifications", "show", str(row))
    assert sorted(device["state"] for device in found["devices"]) == ["dead", "sent", "waiting"]


def test_show_of_a_row_that_is_not_there_says_so(api: Chat) -> None:
    assert "there is no notification 12345" in chat_workers("notifications", "show", "12345", code=1)


def test_replay_shows_first_and_changes_only_when_told(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    emulator.inject(Fault(kind="message_too_big", times=1))
    row, old = api.notify("phone"), api.notify("old-phone")
    run.drain()
    api.execute("UPDATE chat_notifications SET created_at = NOW() - INTERVAL 30 HOUR WHERE id = :id", id=old)
    assert "add --yes" in chat_workers("notifications", "replay", "--status", "BOUNCED", "--reason", "400")
    assert api.status(row)[0] == "BOUNCED"
    assert as_json("notifications", "replay", "--status", "BOUNCED", "--yes")["replayed"] == 1
    assert api.status(row) == ("PENDING", 0, None)
    assert api.status(old)[0] == "BOUNCED"
    run.drain()
    assert accepted() == [(str(row), "phone")]


def test_replay_leaves_a_row_that_someone_else_holds(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="message_too_big"))
    held, row = api.notify("phone"), api.notify("tablet")
    run.drain()
    with api.engine.connect() as connection:
        connection.execute(text("SELECT id FROM chat_notifications WHERE id = :id FOR UPDATE"), {"id": held})
        assert as_json("notifications", "replay", "--status", "BOUNCED", "--yes")["replayed"] == 1
    assert (api.status(held)[0], api.status(row)[0]) == ("BOUNCED", "PENDING")


def test_replay_leaves_a_row_that_the_schema_refuses(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="message_too_big"))
    refused, row = api.notify("phone", title="on hold"), api.notify("tablet")
    run.drain()
    api.execute(
        "ALTER TABLE chat_notifications ADD CONSTRAINT refuse CHECK (title <> 'on hold' OR delivery_status <> 'PENDING')"
    )
    try:
        assert as_json("notifications", "replay", "--status", "BOUNCED", "--yes")["replayed"] == 1
        assert (api.status(refused)[0], api.status(row)[0]) == ("BOUNCED", "PENDING")
    finally:
        api.execute("ALTER TABLE chat_notifications DROP CONSTRAINT refuse")


@pytest.mark.parametrize(
    "provider", [(), ("--provider", "fcm"), ("--app", "default"), ("--provider", "fcm", "--app", "default")]
)
def test_a_pause_holds_every_row_without_an_attempt_until_it_is_resumed(
    api: Chat, emulator: Emulator, accepted: Accepted, provider: tuple[str, ...]
) -> None:
    row = api.notify("phone")
    chat_workers("notifications", "pause", *provider, "--why", "wrong link")
    run.drain()
    run.retry_failed()
    assert (accepted(), api.status(row)[1]) == ([], 0)
    assert as_json("notifications", "status")["pauses"][0]["why"] == "wrong link"
    assert as_json("notifications", "resume", *provider)["resumed"] != []
    api.let_pass(10)
    run.drain()
    assert accepted() == [(str(row), "phone")]
    assert api.status(row)[0] == "SENT"
    chat_workers("notifications", "pause", *provider, "--for", "1d")
    api.execute("UPDATE worker_pauses SET paused_until = NOW(3) - INTERVAL 1 SECOND")
    api.notify("tablet")
    run.drain()
    assert len(accepted()) == 2


@pytest.mark.parametrize("reason", ["%", "_", "\\"])
def test_a_reason_is_taken_literally(api: Chat, emulator: Emulator, reason: str) -> None:
    api.notify(device_tokens="[]")
    run.drain()
    assert as_json("notifications", "replay", "--status", "BOUNCED", "--reason", reason)["found"] == 0


def test_a_dead_device_is_announced_to_the_api_at_once(api: Chat, emulator: Emulator, redis: Redis) -> None:
    emulator.inject(Fault(kind="unregistered"))
    api.notify("gone-phone")
    run.drain()
    [(_, event)] = cast(Any, redis.xrange("chat-workers:dead-devices"))
    assert event[b"provider"] == b"fcm"
    assert event[b"recipient_id"] == b"2"
    assert "gone-phone" not in str(event)
