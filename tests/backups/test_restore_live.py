"""A restore over the live chat: what becomes of notifications settled since the dump, and of the sending meanwhile."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from db.models import CHAT_TABLES
from devstack.emulators.client import Emulator, Fault
from settings import get_settings
from tasks import pause
from tasks.backups import folder, results
from tasks.backups import restore as restoring
from tasks.backups.run import Backups
from tasks.notifications import run
from tests.backups.conftest import FEW_ITERATIONS, quiet, wait_for_midnight_if_it_is_near
from tests.notifications.conftest import Chat
from workers.cli import cli

OPERATOR = "ana@ops"


@pytest.fixture
def live(chat: Engine, emulator: Emulator, into: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backups]:
    """Backups of a chat, empty but for its users, of which this process's commands know too."""
    wait_for_midnight_if_it_is_near(chat)
    monkeypatch.setenv("BACKUP_DIR", str(into))
    monkeypatch.delenv("BACKUP_S3_URI", raising=False)
    get_settings.cache_clear()
    yield Backups(chat, get_settings(), FEW_ITERATIONS)
    monkeypatch.undo()
    get_settings.cache_clear()


def restore(name: str, *options: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["backups", "restore", name, "--yes", *options])
    assert result.exit_code == code, result.output
    return result.output


def test_what_was_sent_since_the_dump_keeps_its_result_and_is_not_sent_again(live: Backups, emulator: Emulator) -> None:
    api = Chat(live.engine)
    sent, waiting, deleted, flaky = (api.notify(name) for name in ("sent", "waiting", "deleted", "flaky"))
    name = live.daily(quiet).artefact
    emulator.inject(Fault(kind="unavailable", token="flaky", times=1))
    with live.engine.connect() as someone:
        someone.execute(text("SELECT id FROM chat_notifications WHERE id = :id FOR UPDATE"), {"id": waiting})
        run.drain()
    api.execute("DELETE FROM chat_notifications WHERE id = :id", id=deleted)
    before = {row: api.notification(row) for row in (sent, flaky)}
    said = restore(name)
    assert "is lost" in said
    assert "1 unsettled notifications of the dump are suppressed" in said
    assert {row: api.notification(row) for row in (sent, flaky)} == before
    assert api.status(deleted) == ("BOUNCED", 0, "suppressed: restored")
    assert pause.paused(live.engine) == frozenset()
    api.let_pass(60)
    run.drain()
    run.adopt()
    run.retry_failed()
    assert Counter(message.token for message in emulator.accepted()) == dict.fromkeys(
        ("sent", "waiting", "deleted", "flaky"), 1
    )


@pytest.mark.parametrize(("options", "status"), [((), "BOUNCED"), (("--push",), "PENDING")])
def test_without_the_live_table_the_dumps_unsettled_rows_are_sent_only_if_told(
    live: Backups, options: tuple[str, ...], status: str
) -> None:
    api = Chat(live.engine)
    row = api.notify("phone")
    name = live.daily(quiet).artefact
    api.execute("DROP TABLE chat_notifications")
    restore(name, *options)
    assert api.status(row)[0] == status


def test_a_restore_that_stopped_goes_on_with_the_results_that_it_had_found(live: Backups, emulator: Emulator) -> None:
    """The first was killed between the last table and the results; nothing is sent from what it left."""
    api = Chat(live.engine)
    row = api.notify("phone")
    made = folder.load(live.folder, live.daily(quiet).artefact)
    run.drain()
    with suppress(KeyboardInterrupt), pause.held(live.engine, OPERATOR, "a restore"):
        results.set_aside(live.engine, made.signed.manifest.created_at)
        restoring.load(live.engine, made, quiet, CHAT_TABLES, triggers=True)
        raise KeyboardInterrupt
    assert api.status(row)[0] == "PENDING"
    run.drain()
    assert "an earlier restore has not given notifications" in restore(made.name, "--tables", "messages", code=1)
    restore(made.name)
    assert api.status(row)[0] == "SENT"
    assert pause.paused(live.engine) == frozenset()
    assert len([*emulator.accepted()]) == 1


def test_a_restore_that_cannot_begin_pauses_nothing(live: Backups) -> None:
    name = live.daily(quiet).artefact
    content = (live.folder / name).read_bytes()
    (live.folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "was changed after it was made" in restore(name, code=1)
    assert pause.paused(live.engine) == frozenset()


def test_an_operators_own_pause_outlasts_a_restore(live: Backups) -> None:
    name = live.daily(quiet).artefact
    with live.engine.begin() as connection:
        pause.pause(connection, (), OPERATOR, "an incident")
    restore(name)
    assert pause.paused(live.engine) == {pause.ALL}
    with live.engine.connect() as connection:
        assert connection.execute(text("SELECT paused_by FROM worker_pauses")).scalars().all() == [OPERATOR]


def test_an_operators_pause_that_ends_or_is_taken_back_leaves_a_restore_paused(live: Backups) -> None:
    with pause.held(live.engine, OPERATOR, "a restore"):
        with live.engine.begin() as connection:
            pause.pause(connection, (), OPERATOR, "an incident", timedelta(seconds=-1))
        assert pause.paused(live.engine) == {pause.RESTORE}
    assert pause.paused(live.engine) == frozenset()
