"""A drill restores from where a restore would, compares every row, and leaves no schema and nobody's schema harmed."""

import hashlib
import os
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import zstandard
from sqlalchemy import Engine, text

from db.engine import create_engine
from devstack.stack import Stack
from settings import ConfigurationError
from tasks.backups import drill, folder, manifest, seal, verify
from tasks.backups.client import schema_engine
from tasks.backups.errors import BackupError
from tasks.backups.ledger import last_drill
from tasks.backups.run import Backups
from tests.backups.conftest import FEW_ITERATIONS, PASSPHRASE, quiet

SCRATCH = "test_chat_drill"


def schemas(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(text("SHOW DATABASES")).scalars())


def rewrite(backups: Backups, old: bytes, new: bytes) -> None:
    """Rewrite the dump's text, and sign it as someone who has the passphrase could."""
    made = folder.load(backups.folder, folder.names(backups.folder, "daily")[0])
    plain = b"".join(verify.plain(made, quiet))
    assert old in plain
    changed = plain.replace(old, new, 1)
    packed = zstandard.compress(changed)
    made.path.write_bytes(packed)
    update = {"bytes": len(packed), "plain_bytes": len(changed), "sha256": hashlib.sha256(packed).hexdigest()}
    composed = manifest.compose(made.signed.manifest.model_copy(update=update), PASSPHRASE, FEW_ITERATIONS)
    made.manifest_path.write_bytes(composed)


def resign(backups: Backups, old: bytes, new: bytes) -> None:
    """Rewrite the dump's manifest, and sign it as someone who has the passphrase could."""
    mark = backups.folder / (folder.names(backups.folder, "daily")[0] + manifest.SUFFIX)
    line = mark.read_bytes().partition(b"\n")[0]
    assert old in line
    changed = manifest.parse(line.replace(old, new) + b"\n", mark.name.removesuffix(manifest.SUFFIX)).manifest
    mark.write_bytes(manifest.compose(changed, PASSPHRASE, FEW_ITERATIONS))


def test_each_tier_in_its_turn(backups: Backups) -> None:
    dumped = backups.daily(quiet)
    backups.weekly(quiet)
    backups.monthly(quiet)
    runs = [backups.drill(quiet) for _ in range(4)]
    assert [run.tier for run in runs] == ["daily", "weekly", "monthly", "daily"]
    assert {run.rows for run in runs} == {dumped.rows}
    assert SCRATCH not in schemas(backups.engine)
    assert not list(backups.folder.glob("*.partial"))
    with backups.engine.connect() as connection:
        recorded = connection.execute(
            text("SELECT tier, outcome, row_count FROM worker_backup_runs WHERE job = 'drill' ORDER BY id")
        ).all()
    assert [tuple(row) for row in recorded] == [(run.tier, "done", dumped.rows) for run in runs]


def test_a_drill_says_how_fast_a_restore_is_and_how_new_its_newest_row(backups: Backups) -> None:
    newest = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as the driver returns it
    with backups.engine.begin() as connection:
        connection.execute(text("UPDATE messages SET created_at = NULL"))
        connection.execute(text("UPDATE chat_notifications SET created_at = :newest"), {"newest": newest})
        connection.execute(text("UPDATE messages SET created_at = '2026-01-01' WHERE id = 1"))
    backups.daily(quiet)
    run = backups.drill(quiet)
    assert (run.newest_row_at, run.restore_milliseconds > 0) == (newest, True)
    proved = last_drill(backups.engine)
    assert proved
    assert (proved.rows, proved.bytes, proved.newest_row_at) == (run.rows, run.bytes, newest)


@pytest.mark.skipif(
    os.environ.get("DEVSTACK_DATABASE") == "mysql", reason="MariaDB's alone: MySQL's sessions have no such switch"
)
def test_rows_that_break_a_check_come_back_as_they_were(backups: Backups) -> None:
    with backups.engine.begin() as connection:
        connection.execute(text("SET SESSION check_constraint_checks = 0"))
        connection.execute(text("UPDATE messages SET metadata = '{' WHERE id = 1"))
        connection.execute(text("SET SESSION check_constraint_checks = 1"))
    assert backups.daily(quiet).rows == backups.drill(quiet).rows


def test_a_drill_takes_place_on_another_server_if_one_is_named(backups: Backups) -> None:
    """Which the chat's account does not know, and whose schema of that name it does not need."""
    backups.daily(quiet)
    with Stack(f"drill-{os.getpid()}", ["mariadb"]) as elsewhere:
        url = elsewhere.mariadb.create_database("test_elsewhere")
        there = replace(backups, settings=backups.settings.model_copy(update={"backup_drill_url": url}))
        assert there.drill(quiet).rows
        assert "test_elsewhere" not in schemas(create_engine(elsewhere.mariadb.url("information_schema")))
    with pytest.raises(BackupError, match=r"the drills' server 127.0.0.1 failed: .*Can't connect"):
        there.drill(quiet, tier="daily")
    assert there.daily(quiet, force=True).artefact


def test_a_dump_of_other_rows_than_its_manifest_says_is_found(backups: Backups) -> None:
    backups.daily(quiet)
    resign(backups, b'"message_reactions":{"rows":100', b'"message_reactions":{"rows":101')
    with pytest.raises(BackupError, match="holds other rows than its manifest says"):
        backups.drill(quiet)
    assert SCRATCH not in schemas(backups.engine)


def test_rows_that_are_missing_are_found(backups: Backups) -> None:
    backups.daily(quiet)
    fewer = b"\nDELETE FROM `message_reactions` LIMIT 1;\nCOMMIT;\n-- Dump completed"
    rewrite(backups, b"\n-- Dump completed", fewer)
    with pytest.raises(BackupError, match="restored 99 rows of message_reactions, of 100 in it"):
        backups.drill(quiet)
    assert SCRATCH not in schemas(backups.engine)


def test_values_that_differ_are_found(backups: Backups) -> None:
    backups.daily(quiet)
    other = b"\nSET foreign_key_checks = 0;\nUPDATE `messages` SET message_text = 'other' LIMIT 1;\nCOMMIT;\n-- Dump completed"
    rewrite(backups, b"\n-- Dump completed", other)
    with pytest.raises(BackupError, match="restored other values than were dumped in messages"):
        backups.drill(quiet)


def test_a_failed_drill_does_not_keep_the_other_tiers_from_theirs(backups: Backups) -> None:
    backups.daily(quiet)
    backups.weekly(quiet)
    resign(backups, b'"message_reactions":{"rows":100', b'"message_reactions":{"rows":101')
    with pytest.raises(BackupError):
        backups.drill(quiet)
    assert backups.drill(quiet).tier == "weekly"


def test_a_schema_that_no_drill_made_is_left_alone(backups: Backups, stack: Stack) -> None:
    backups.daily(quiet)
    name = stack.mariadb.create_database(SCRATCH).rpartition("/")[2]
    with schema_engine(backups.engine.url, name) as engine, engine.connect() as connection:
        connection.execute(text("CREATE TABLE messages (id INT)"))
        with pytest.raises(BackupError, match=f"the schema {SCRATCH} has tables that no drill made"):
            backups.drill(quiet)
        assert connection.execute(text("SHOW TABLES")).scalars().all() == ["messages"]
    stack.mariadb.drop_database(SCRATCH)


def test_what_a_killed_drill_left_is_cleared_away(backups: Backups, stack: Stack) -> None:
    backups.daily(quiet)
    name = stack.mariadb.create_database(SCRATCH).rpartition("/")[2]
    with schema_engine(backups.engine.url, name) as engine, engine.connect() as connection:
        connection.execute(text(f"CREATE TABLE {drill.MARK} (id INT)"))
        connection.execute(text("CREATE TABLE messages (id INT)"))
    assert backups.drill(quiet).rows
    assert SCRATCH not in schemas(backups.engine)


def test_the_chats_own_schema_is_no_scratch(backups: Backups) -> None:
    backups.daily(quiet)
    settings = backups.settings.model_copy(update={"backup_drill_database": "test_chat"})
    with pytest.raises(BackupError, match="the schema test_chat has tables that no drill made"):
        Backups(backups.engine, settings).drill(quiet)


def test_an_account_without_the_right_is_told_the_grant(backups: Backups) -> None:
    backups.daily(quiet)
    settings = backups.settings.model_copy(update={"backup_drill_database": "elsewhere_drill"})
    with pytest.raises(BackupError, match=r"GRANT ALL PRIVILEGES ON `elsewhere\\_drill`\.\* TO chat_workers@"):
        Backups(backups.engine, settings).drill(quiet)


def test_an_archive_that_is_late_holds_all_days_since_the_one_before(backups: Backups) -> None:
    name = backups.daily(quiet).artefact
    for day in (*range(1, 11), 13):
        for suffix in ("", manifest.SUFFIX):
            content = (backups.folder / (name + suffix)).read_bytes()
            old = f"backup_chat_202001{day:02}.sql.zst"
            (backups.folder / (old + suffix)).write_bytes(content.replace(name.encode(), old.encode()))
    sealed = "backup_chat_week_20200103.tar.enc"
    made = datetime(2020, 1, 3, tzinfo=UTC)
    archive = manifest.Manifest(
        kind="weekly", name=sealed, created_at=made, bytes=0, sha256="0" * 64, plain_bytes=0, milliseconds=0
    )
    (backups.folder / sealed).touch()
    (backups.folder / (sealed + manifest.SUFFIX)).write_bytes(manifest.compose(archive, PASSPHRASE, FEW_ITERATIONS))
    week = [backup.day.day for backup in seal.week(backups.folder, date(2020, 1, 13))]
    assert week == [*range(4, 11), 13]


def test_nothing_to_drill_and_nowhere_to_look(backups: Backups, into: Path) -> None:
    with pytest.raises(BackupError, match=r"there is no daily backup in .* to drill"):
        backups.drill(quiet)
    shutil.rmtree(into)
    with pytest.raises(ConfigurationError, match="is no folder; mount its disk"):
        backups.drill(quiet)
