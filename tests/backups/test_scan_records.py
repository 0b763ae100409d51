"""The verdicts on attachments are dumped with the chat: a lost host neither blocks every file nor forgets what was blocked."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, inspect, text

from db.migrate import migrate, revision_fault
from db.models import CHAT_TABLES, DUMPED_TABLES
from db.needs import VERSION_TABLE
from settings import get_settings
from tasks.attachments import find_unqueued, operations
from tasks.backups import dump, folder, restore, verify
from tasks.backups.client import SHELLS, find_client, server_family
from tasks.backups.errors import BackupError
from tasks.backups.run import Backups
from tasks.backups.scan import only_tables
from tests.backups.conftest import FEW_ITERATIONS, quiet, wait_for_midnight_if_it_is_near
from workers.cli import cli

SERVED, INFECTED, RELEASED = (1, 1), (1, 0), "ab" * 32
ROWS = (
    "INSERT INTO message_attachments (id, message_id, uploaded_by_id, file_name, file_url, scanned_for_virus, is_safe)"
    " VALUES (7, 1, 1, 'a', '/files/7', 1, 1), (8, 1, 1, 'b', '/files/8', 1, 0)",
    "INSERT INTO worker_scans (attachment_id, verdict, file_url) VALUES (7, 'clean', '/files/7'), (8, 'infected', '/files/8')",
    f"INSERT INTO worker_scan_releases (sha256, released_by, reason) VALUES ('{RELEASED}', 'ana', 'ours')",
)


@pytest.fixture
def scanned(chat: Engine, into: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backups]:
    """Backups of a chat with a clean attachment and an infected one, of which this process's commands know too."""
    wait_for_midnight_if_it_is_near(chat)
    monkeypatch.setenv("BACKUP_DIR", str(into))
    monkeypatch.delenv("BACKUP_S3_URI", raising=False)
    get_settings.cache_clear()
    with chat.begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        for statement in ROWS:
            connection.execute(text(statement))
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
    yield Backups(chat, get_settings(), FEW_ITERATIONS)
    monkeypatch.undo()
    get_settings.cache_clear()


def swept(engine: Engine) -> list[tuple[int, int]]:
    """Let the sweep look for attachments, twice; return their flags."""
    for _ in range(2):
        find_unqueued.find_recent(engine)
        find_unqueued.find_older(engine)
    return flags(engine)


def flags(engine: Engine) -> list[tuple[int, int]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT scanned_for_virus, is_safe FROM message_attachments"))]


def test_a_new_host_knows_the_verdicts_and_releases_of_the_dump(scanned: Backups, other: Engine) -> None:
    name = scanned.daily(quiet).artefact
    scanned.restore(scanned.find(name), other, DUMPED_TABLES, quiet)
    migrate(other)

    assert swept(other) == [SERVED, INFECTED]
    assert operations.history(other)["attachments"] == 0
    with other.connect() as connection:
        verdicts = connection.execute(text("SELECT verdict FROM worker_scans ORDER BY attachment_id")).scalars().all()
        assert verdicts == ["clean", "infected"]
        assert connection.execute(text("SELECT sha256 FROM worker_scan_releases")).scalar_one() == RELEASED


def test_a_new_host_that_has_none_asks_before_it_touches_a_row(scanned: Backups, other: Engine) -> None:
    name = scanned.daily(quiet).artefact
    with other.begin() as connection:  # without users MySQL refuses every write to attachments
        connection.execute(text(f"CREATE TABLE users LIKE {scanned.engine.url.database}.users"))
        connection.execute(text(f"INSERT INTO users SELECT * FROM {scanned.engine.url.database}.users"))
    scanned.restore(scanned.find(name), other, CHAT_TABLES, quiet)
    migrate(other)

    assert swept(other) == [SERVED, INFECTED]
    found = operations.history(other)
    assert (found["attachments"], found["choice"]) == (1, None)
    operations.choose(other, "block")
    assert swept(other) == [(0, 0), INFECTED]


def test_a_dump_of_an_earlier_version_is_brought_to_this_ones_tables(scanned: Backups) -> None:
    with scanned.engine.begin() as connection:
        connection.execute(text("ALTER TABLE worker_scans DROP COLUMN of_row"))
    name = scanned.daily(quiet).artefact
    migrate(scanned.engine, anew=True)
    with scanned.engine.begin() as connection:
        connection.execute(text("DELETE FROM worker_scans"))  # one that has records keeps them
        connection.execute(text(f"DELETE FROM {VERSION_TABLE}"))  # as a restore has it that is killed while it migrates

    done = CliRunner().invoke(cli, ["backups", "restore", name, "--yes"])

    assert done.exit_code == 0, done.output
    with scanned.engine.connect() as connection:
        assert revision_fault(connection) is None
    assert "of_row" in {column["name"] for column in inspect(scanned.engine).get_columns("worker_scans")}
    assert swept(scanned.engine) == [SERVED, INFECTED]


def test_the_first_sweep_blocks_a_file_that_was_found_infected_since_the_dump(scanned: Backups) -> None:
    name = scanned.daily(quiet).artefact
    with scanned.engine.begin() as connection:
        connection.execute(text("UPDATE message_attachments SET is_safe = 0"))
        connection.execute(text("UPDATE worker_scans SET verdict = 'infected'"))

    done = CliRunner().invoke(cli, ["backups", "restore", name, "--yes"])

    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines() if line.endswith("keeps its own")] == [
        "worker_scans",
        "worker_scan_releases",
    ]
    assert flags(scanned.engine) == [SERVED, INFECTED]
    assert find_unqueued.find_served(scanned.engine) == 1
    assert flags(scanned.engine) == [(0, 0), INFECTED]


def test_records_that_a_restore_was_cut_off_in_are_not_taken_for_the_schemas_own(scanned: Backups, other: Engine) -> None:
    made = folder.load(scanned.folder, scanned.daily(quiet).artefact)

    def cut() -> Iterator[bytes]:
        for statement in restore._noting(only_tables(verify.plain(made, quiet), ("worker_scans",)), ""):
            yield statement
            if b"INSERT INTO `worker_scans`" in statement:
                yield b"\nthis is no SQL;"

    with other.begin() as connection:
        connection.execute(restore.MAKE_PROGRESS)
    with pytest.raises(BackupError, match="error in your SQL syntax"):
        restore.load_text(other, find_client(SHELLS[server_family(other)]), cut(), made.name)
    assert inspect(other).has_table("worker_scans")
    assert restore.filled_tables(other, ("worker_scans",)) == []


def test_a_dump_without_records_leaves_those_of_the_live_chat(scanned: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as before:
        before.setattr(dump, "dump_text", partial(dump.dump_text, tables=CHAT_TABLES))
        name = scanned.daily(quiet).artefact

    done = CliRunner().invoke(cli, ["backups", "restore", name, "--yes"])

    assert done.exit_code == 0, done.output
    assert swept(scanned.engine) == [SERVED, INFECTED]
    assert operations.history(scanned.engine)["attachments"] == 0
    refused = CliRunner().invoke(cli, ["backups", "restore", name, "--yes", "--tables", "worker_scans"])
    assert "has no table worker_scans" in refused.output
