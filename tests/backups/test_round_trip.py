"""What was dumped comes back just as it was: by our restore, out of an archive, and table by table."""

import stat
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.models import CHAT_TABLES
from db.needs import family_of
from db.rows import quoted
from tasks.backups import folder, restore, verify
from tasks.backups.client import server_family
from tasks.backups.run import Backups
from tests.backups.conftest import PASSPHRASE, checksums, numbers, quiet


def test_a_dump_restores_to_identical_checksums(backups: Backups, other: Engine) -> None:
    run = backups.daily(quiet)
    backups.restore(backups.find(run.artefact), other, CHAT_TABLES, quiet, push=True)
    assert checksums(other) == checksums(backups.engine)


def test_an_archive_restores_to_identical_checksums(backups: Backups, other: Engine) -> None:
    backups.daily(quiet)
    run = backups.weekly(quiet)
    backups.restore(backups.find(run.artefact), other, CHAT_TABLES, quiet, push=True)
    assert checksums(other) == checksums(backups.engine)
    assert not list(backups.folder.glob("*.partial"))


def test_the_manifest_counts_the_rows_of_the_snapshot(backups: Backups) -> None:
    backups.daily(quiet)
    manifest = folder.load(backups.folder, folder.names(backups.folder, "daily")[0]).signed.manifest
    with backups.engine.connect() as connection:
        for table in CHAT_TABLES:
            assert manifest.tables[table].rows == connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one()
    assert manifest.database == backups.engine.url.database
    assert family_of(manifest.server) == family_of(manifest.client) == server_family(backups.engine)


def test_rows_that_come_while_the_dump_runs_are_neither_dumped_nor_counted(backups: Backups) -> None:
    seen = False

    def write(size: int) -> None:
        nonlocal seen
        if size and not seen:
            seen = True
            with backups.engine.begin() as connection:
                connection.execute(text("DELETE FROM message_reactions"))
                connection.execute(
                    text("INSERT INTO typing_indicators (conversation_id, user_id, expires_at) VALUES (1, 1, NOW())")
                )

    backups.daily(write)
    tables = folder.load(backups.folder, folder.names(backups.folder, "daily")[0]).signed.manifest.tables
    assert (seen, tables["message_reactions"].rows, tables["typing_indicators"].rows) == (True, 100, 1)


def test_only_the_wanted_tables_are_restored(backups: Backups, other: Engine) -> None:
    run = backups.daily(quiet)
    backups.restore(backups.find(run.artefact), other, ("messages", "message_reads"), quiet)
    with other.connect() as connection:
        assert set(connection.execute(text("SHOW TABLES")).scalars()) == {"messages", "message_reads"}
        restored = connection.execute(text("CHECKSUM TABLE messages, message_reads")).all()
    original = checksums(backups.engine)
    assert [row[1] for row in restored] == [original["messages"], original["message_reads"]]


def test_a_restore_says_which_keys_have_no_parent(backups: Backups, other: Engine) -> None:
    run = backups.daily(quiet)
    with other.begin() as connection:
        connection.execute(text("CREATE TABLE users (id INT PRIMARY KEY)"))
        connection.execute(text(f"INSERT INTO users SELECT seq FROM {numbers(2, 50)}"))
    backups.restore(backups.find(run.artefact), other, CHAT_TABLES, quiet, push=True)
    found = {entry.column: entry for entry in restore.orphans(other)}
    assert found["conversations.bid_id"].count is None
    assert (found["message_attachments.uploaded_by_id"].parent, found["message_attachments.uploaded_by_id"].count) == (
        "users",
        1,
    )
    assert "message_reads.reader_id" not in found


@pytest.mark.parametrize("name", ["bookmarks", "b` c UNION SELECT 1 AS :p#"])
def test_a_restore_of_one_table_names_the_rows_of_others_that_refer_to_it(backups: Backups, name: str) -> None:
    """What they are called is for others to choose."""
    bookmarks = quoted(name)
    made = backups.find(backups.daily(quiet).artefact)
    with backups.engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {bookmarks} (id INT, message INT, FOREIGN KEY (message) REFERENCES messages (id))"
        )
        new = connection.execute(
            text("INSERT INTO messages (message_id, conversation_id, sender_id, message_text) VALUES ('new', 1, 1, 'hi')")
        ).lastrowid
        connection.exec_driver_sql(f"INSERT INTO {bookmarks} VALUES (1, {new})")
        connection.execute(
            text("INSERT INTO message_reads (message_id, conversation_id, reader_id) VALUES (:new, 1, 3)"), {"new": new}
        )
    try:
        backups.restore(made, backups.engine, ["messages"], quiet)
        found = {(entry.column, entry.parent, entry.count) for entry in restore.orphans(backups.engine, ["messages"])}
        assert found == {(f"{name}.message", "messages", 1), ("message_reads.message_id", "messages", 1)}
    finally:
        with backups.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP TABLE {bookmarks}")


def test_backups_are_private(backups: Backups) -> None:
    backups.daily(quiet)
    backups.weekly(quiet)
    assert {stat.S_IMODE(path.stat().st_mode) for path in backups.folder.iterdir()} == {0o600}


def test_a_whole_backup_is_found_to_be_so(backups: Backups) -> None:
    backups.daily(quiet)
    backups.weekly(quiet)
    for name in [path.name for path in backups.folder.iterdir() if folder.kind_of(path.name)]:
        verify.check_content(folder.load(backups.folder, name), [PASSPHRASE], quiet)


def test_the_passphrase_and_the_password_are_in_no_file_of_a_backup(backups: Backups, into: Path) -> None:
    backups.daily(quiet)
    backups.weekly(quiet)
    everything = b"".join(path.read_bytes() for path in into.iterdir())
    assert PASSPHRASE not in everything
    assert str(backups.engine.url.password).encode() not in everything
