"""`chat-workers retention forget`: all that the workers keep of one person, and docs/security.md knows each place."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis
from sqlalchemy import Engine, text

from db.privileges import worker_tables
from devstack.folder import PROJECT
from settings import get_settings
from tasks import pause
from tasks.audit import newest
from tests.retention.rows import notification, parents
from workers.cli import cli
from workers.forget import KEYS, STREAM, TABLES

SOURCES = [path.read_text() for folder in ("tasks", "workers") for path in (PROJECT / folder).rglob("*.py")]
AT = "2026-11-01 10:00:00"


def rows(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return [*connection.execute(text(statement)).scalars()]


def call(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(cli, ["retention", "forget", *arguments, "--json"])
    assert done.stdout, (done.output, done.exc_info)
    return done.exit_code, json.loads(done.stdout)


@pytest.fixture
def kept(chat: Engine, redis: Redis) -> Engine:
    """What the workers keep of user 2, of user 22, and of a message 2 to others, after the API has deleted most of it."""
    parents(chat)
    statements = [
        "INSERT INTO message_attachments (id, message_id, file_name, file_url, uploaded_by_id) VALUES (90, 1, 'a', '/a', 2)",
    ]
    for id_, person in ((1, 2), (2, 22), (3, 1)):
        identity, of_row = f"{person} 2 {AT}", f"2 {person} {AT}"
        statements += [
            "INSERT INTO worker_dead_devices (device_key, provider, token, recipient_id, notification_id, reason)"
            f" VALUES ('fcm:{id_}', 'fcm', 't', {person}, 1, 'gone')",
            f"INSERT INTO worker_delivery_history (notification_id, status, identity) VALUES ({id_}, 'FAILED', '{identity}')",
            f"INSERT INTO worker_deliveries (notification_id, due_at, identity) VALUES ({id_}, NOW(3), '{identity}')",
            f"INSERT INTO worker_scans (attachment_id, verdict, of_row) VALUES ({id_}, 'clean', '{of_row}')",
            f"INSERT INTO worker_scan_events (attachment_id, event, of_row) VALUES ({id_}, 'clean', '{of_row}')",
        ]
        for told in ({"recipient_id": person}, {"of_row": of_row}):
            statements.append(f"INSERT INTO worker_events (type, data) VALUES ('x', '{json.dumps(told)}')")
        redis.xadd(STREAM, {"device_key": f"fcm:{id_}", "recipient_id": person})
        redis.set(f"{KEYS[0]}{person}", b"marks")
    statements += [
        # A row that waits, one from before there were identities, a file that is there, a copy in quarantine.
        f"INSERT INTO worker_deliveries (notification_id, due_at, identity) VALUES (50, NOW(3), '2 1 {AT}')",
        "INSERT INTO worker_delivery_history (notification_id, status) VALUES (50, 'FAILED')",
        f"INSERT INTO worker_scans (attachment_id, verdict, of_row) VALUES (90, 'clean', '1 2 {AT}')",
        "INSERT INTO worker_scans (attachment_id, verdict, of_row, quarantine, scanned_at)"
        f" VALUES (91, 'infected', '1 2 {AT}', 'file:///q/91', NOW())",
    ]
    with chat.begin() as connection:
        notification(connection, 50, created=f"'{AT}'")
        for statement in statements:
            connection.execute(text(statement))
    return chat


def test_it_is_shown_first_and_then_all_of_him_is_gone_and_nothing_of_others(kept: Engine, redis: Redis) -> None:
    status, shown = call("2")
    assert (status, shown["rows"]) == (0, 10)
    assert newest(kept, "retention forget", 9) == []
    status, done = call("2", "--yes")
    assert (status, done["found"]) == (0, shown["found"])
    assert rows(kept, "SELECT recipient_id FROM worker_dead_devices ORDER BY 1") == [1, 22]
    assert rows(kept, "SELECT notification_id FROM worker_delivery_history ORDER BY 1") == [2, 3]
    assert rows(kept, "SELECT attachment_id FROM worker_scan_events ORDER BY 1") == [2, 3]
    assert rows(kept, "SELECT COUNT(*) FROM worker_events WHERE data LIKE '%22%'") == [2]
    assert rows(kept, "SELECT COUNT(*) FROM worker_events") == [4]
    events: Any = redis.xrange(STREAM)
    assert [event[b"recipient_id"] for _, event in events] == [b"22", b"1"]
    assert sorted(redis.keys(f"{KEYS[0]}*")) == [f"{KEYS[0]}{person}".encode() for person in (1, 22)]
    assert call("2", "--yes")[1]["rows"] == 0
    assert [entry["arguments"]["recipient"] for entry in newest(kept, "retention forget", 9)] == [2, 2]


def test_devices_of_which_the_api_says_that_they_died_at_no_time_at_all_go_too(kept: Engine) -> None:
    with kept.begin() as connection:
        connection.execute(text("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"))
        for person in (2, 22):
            for died_at in ("0000-00-00", "2026-02-00", "2026-02-30", "0001-01-01", "9999-12-31 23:59:59.999"):
                connection.execute(
                    text(
                        "INSERT INTO worker_dead_devices"
                        " (device_key, provider, token, recipient_id, notification_id, reason, died_at) VALUES"
                        f" ('fcm:{person} {died_at}', 'fcm', 't', {person}, 0, 'logged out', '{died_at}')"
                    )
                )
        connection.execute(text("SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"))
    assert call("2")[1]["found"]["worker_dead_devices"] == 6
    assert call("2", "--yes")[0] == 0
    assert rows(kept, "SELECT DISTINCT recipient_id FROM worker_dead_devices ORDER BY 1") == [1, 22]
    assert rows(kept, "SELECT COUNT(*) FROM worker_dead_devices") == [7]


def test_what_is_still_to_be_sent_or_served_keeps_its_record(kept: Engine) -> None:
    call("2", "--yes")
    assert rows(kept, "SELECT notification_id FROM worker_deliveries ORDER BY 1") == [2, 3, 50]
    assert rows(kept, "SELECT attachment_id FROM worker_scans ORDER BY 1") == [2, 3, 90, 91]


def test_nothing_is_forgotten_while_a_restore_is_half_done_and_rows_are_missing_for_a_moment(kept: Engine) -> None:
    with kept.begin() as connection:
        connection.execute(text("SET SESSION foreign_key_checks = 0"))
        connection.execute(text("DELETE FROM message_attachments"))
        pause.pause(connection, [pause.RESTORE], "ann", "a restore")
    done = CliRunner().invoke(cli, ["retention", "forget", "2", "--yes"])
    assert done.exit_code == 1
    assert "a restore is under way" in done.stderr
    assert len(rows(kept, "SELECT attachment_id FROM worker_scans")) == 5
    assert call("2")[0] == 0


@pytest.mark.usefixtures("kept")
def test_dumps_archives_and_quarantine_are_listed_with_the_day_they_end() -> None:
    assert {each["what"]: bool(each["gone"]) for each in call("2")[1]["elsewhere"]} == {
        "daily backups": True,
        "weekly backups": True,
        "monthly backups": True,
        "uploads in quarantine": False,
        "files of retention's archives": False,
    }


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("bucket", "ship", "lock", "months", "days"),
    [
        (False, "monthly", 0, 12, (15, 70, 417)),
        (True, "monthly", 400, 12, (15, 70, 445)),
        (True, "weekly", 400, 12, (15, 414, 445)),
        (True, "daily", 400, 12, (401, 414, 445)),
        (True, "daily", 5, 12, (15, 70, 417)),
        (True, "monthly", 400, 0, (15, 70, None)),
    ],
)
def test_no_backup_with_a_dump_of_before_outlasts_the_day_that_is_named(
    monkeypatch: pytest.MonkeyPatch, bucket: bool, ship: str, lock: int, months: int, days: tuple[int | None, ...]
) -> None:
    """With what is sealed into a week's archive and shipped as a month's afterwards, and what the bucket has locked."""
    variables = {"S3_SHIP": ship, "S3_LOCK_DAYS": lock, "KEEP_MONTHLY": months} | (
        {"S3_URI": "s3://backups/chat"} if bucket else {}
    )
    for name, value in variables.items():
        monkeypatch.setenv(f"BACKUP_{name}", str(value))
    get_settings.cache_clear()
    try:
        now = datetime.now(UTC).replace(tzinfo=None)
        shown = call("2")[1]["elsewhere"][:3]
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
    gone = [each["gone"] and datetime.fromisoformat(each["gone"]).replace(tzinfo=None) - now for each in shown]
    assert [wait and round(wait / timedelta(days=1)) for wait in gone] == [*days]


def test_the_security_page_knows_every_table_and_key_and_what_forget_does_there() -> None:
    chapter = (PROJECT / "docs" / "security.md").read_text().partition("## What is kept of people")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in chapter.splitlines() if line.startswith("| ")]
    does = {name: row[-1] for row in cells for name in re.findall(r"`([\w:-]+)`", row[0])}
    keys = {name for source in SOURCES for name in re.findall(r'"(chat-workers:[a-z][\w:-]*)"', source)}
    assert {name for name in does if name.startswith("worker_")} == {*worker_tables()}
    assert keys <= does.keys()
    assert {name for name, word in does.items() if word.startswith("deleted")} == {*TABLES, STREAM, *KEYS}
