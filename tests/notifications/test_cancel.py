"""`notifications cancel`: which rows it takes, and that a row is either sent or cancelled, whoever is killed."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from devstack.emulators.client import Emulator, Fault
from tasks.notifications import cancel, run
from tests.acceptance.conftest import load, nudge, send, start_worker
from tests.notifications.conftest import Accepted, Chat
from tests.processes import Process, wait_until
from workers.cli import cli

__all__ = ["load", "nudge", "send", "start_worker"]

MAIN = "from workers.cli import main; main()"
WHY = ("--why", "wrong link")


def cancelled(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(cli, ["notifications", "cancel", *WHY, *arguments, "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_it_shows_first_and_then_settles_what_waits_for_good(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    emulator.inject(Fault(kind="unavailable", token="flaky"))
    half, waiting = api.notify("phone", "flaky"), api.notify("flaky")
    run.drain()
    fresh, other = api.notify("tablet"), api.notify("other", sender_id=2)
    assert cancelled("--sender", "1") == {
        "found": 3, "cancelled": 0, "held": 0, "stopped": False, "ids": [fresh, half, waiting],
    }  # fmt: skip
    assert api.status(fresh)[0] == "PENDING"
    assert cancelled("--sender", "1", "--yes")["cancelled"] == 3
    assert api.status(fresh) == api.status(waiting) == ("BOUNCED", 0, "cancelled: wrong link")
    assert api.status(half) == ("SENT", 1, "cancelled: wrong link")
    assert {row["reason"] for row in api.rows("SELECT reason FROM worker_delivery_history")} == {"cancelled"}
    api.let_pass(3600)
    run.drain()
    assert [token for _, token in accepted()] == ["phone", "other"]
    assert api.status(other)[0] == "SENT"


def test_ids_below_zero_are_cancelled_too(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unavailable", token="flaky"))
    api.notify("flaky", id=-8)
    run.drain()
    api.notify("phone", id=-7)
    assert cancelled("--everything", "--yes")["ids"] == [-7, -8]
    assert {api.status(row)[0] for row in (-7, -8)} == {"BOUNCED"}


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        (("--provider", "fcm"), {"android", "driver"}),
        (("--app", "driver"), {"driver", "iphone"}),
        (("--app", "driver", "--provider", "apns"), {"iphone"}),
        (("--conversation", "2"), {"elsewhere"}),
        (("--recipient", "1"), {"elsewhere"}),
        (("--type", "SYSTEM", "--sender", "1"), {"elsewhere"}),
    ],
)
def test_options_narrow_the_choice(api: Chat, arguments: tuple[str, ...], tokens: set[str]) -> None:
    api.insert("conversations", id=2, conversation_id="c-2", initiator_id=2, receiver_id=1)
    apps = {"android": ("fcm", "default"), "driver": ("fcm", "driver"), "iphone": ("apns", "driver")}
    rows = {
        name: api.notify({"provider": provider, "app": app, "token": "ab" * 32 if provider == "apns" else name})
        for name, (provider, app) in apps.items()
    }
    # Of two providers and apps: neither's alone.
    rows["both"] = api.notify("phone", {"provider": "apns", "app": "driver", "token": "cd" * 32})
    web = {"provider": "webpush", "endpoint": "https://push.example.com/1", "keys": {"p256dh": "k", "auth": "k"}}
    rows["elsewhere"] = api.notify(web, conversation_id=2, recipient_id=1, notification_type="SYSTEM")
    assert cancelled(*arguments, "--yes")["cancelled"] == len(tokens)
    assert {name for name, row in rows.items() if api.status(row)[0] == "BOUNCED"} == tokens


def test_a_row_without_a_type_is_a_message_as_it_is_when_it_is_sent(api: Chat) -> None:
    row = api.notify("phone", notification_type=None)
    assert cancelled("--type", "SYSTEM", "--yes")["cancelled"] == 0
    assert cancelled("--type", "MESSAGE", "--yes")["ids"] == [row]


def test_everything_holds_rows_that_no_worker_has_entered_yet(api: Chat, accepted: Accepted) -> None:
    rows = [api.notify(delivery_status=status) for status in (None, "FAILED")]
    assert cancelled("--everything", "--yes", "--why", "\udcff")["cancelled"] == 2
    run.adopt()
    run.drain()
    assert [api.status(row) for row in rows] == [("BOUNCED", 0, r"cancelled: \udcff")] * 2
    assert accepted() == []


def test_it_asks_which_rows(api: Chat) -> None:
    done = CliRunner().invoke(cli, ["notifications", "cancel", *WHY, "--yes"])
    assert (done.exit_code, "--everything" in done.output) == (2, True)


def test_a_row_that_a_worker_or_the_api_holds_is_left_to_it(api: Chat, emulator: Emulator) -> None:
    leased, locked, parked = api.notify("a"), api.notify("b"), api.notify("c")
    api.insert("worker_deliveries", notification_id=leased, lease="f" * 32, due_at="2999-01-01", claims=1)
    api.insert("worker_deliveries", notification_id=parked, due_at="2999-01-01", reason="parked: the row is locked")
    with api.engine.connect() as holder:
        holder.execute(text("SELECT 1 FROM chat_notifications WHERE id = :id FOR UPDATE"), {"id": locked})
        done = cancelled("--everything", "--yes")
    assert (done["cancelled"], done["held"]) == (0, 3)


@pytest.mark.timeout(300)
def test_under_load_a_row_is_either_sent_or_cancelled(
    chat: Engine,
    emulator: Emulator,
    load: Callable[[int], None],
    start_worker: Callable[..., Process],
    nudge: Callable[[], None],
    accepted: Accepted,
) -> None:
    load(10_000)
    start_worker()
    nudge()
    wait_until(lambda: emulator.stats().requests() > 100, "the worker sent")
    assert cancelled("--everything", "--yes")["cancelled"] > 0
    with chat.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        left = text("SELECT COUNT(*) FROM chat_notifications WHERE delivery_status = 'PENDING'")

        def settled() -> bool:
            run.retry_failed()  # beat's: results of rows that a cancellation just had locked are parked
            return connection.execute(left).scalar() == 0

        wait_until(settled, "the worker settled what it held")
        by_us = text("SELECT id FROM chat_notifications WHERE error_message = 'cancelled: wrong link'")
        ids = {str(row) for row in connection.execute(by_us).scalars()}
    assert ids
    assert not ids & {row for row, _ in accepted()}


def test_killed_in_the_middle_it_has_done_whole_batches_and_the_next_one_does_the_rest(
    api: Chat, emulator: Emulator, load: Callable[[int], None], tmp_path: Path
) -> None:
    api.notify()
    load(20 * cancel.BATCH - 1)
    count = "SELECT COUNT(*) AS n FROM chat_notifications WHERE delivery_status = 'BOUNCED'"
    words = ["notifications", "cancel", "--everything", "--yes", "--why", "wrong"]
    sessions = "SELECT COUNT(*) AS n FROM information_schema.processlist"
    before = api.rows(sessions)[0]["n"]
    process = Process([sys.executable, "-c", MAIN, *words], os.environ, tmp_path / "cancel.log").start()
    wait_until(lambda: api.rows(count)[0]["n"] > 0, "the first batch was written", every=0.01)
    process.kill()
    # The server still commits what it has been told to.
    wait_until(lambda: api.rows(sessions)[0]["n"] <= before, "the killed process's session had ended")
    done = api.rows(count)[0]["n"]
    assert done % cancel.BATCH == 0
    assert cancelled("--everything", "--yes")["cancelled"] == 20 * cancel.BATCH - done
