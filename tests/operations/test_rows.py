"""The rows of the snapshot: which are there, and what they hold of odd messages, queues, uploads and backups."""

import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from sqlalchemy import Engine

from db.locks import hold, is_held
from settings import get_settings
from tasks.backups import facts
from tasks.retention.ledger import lock_of
from tests.operations.conftest import NOTIFICATION, Execute, Look, samples, value
from workers.operations.exposition import exposition


@pytest.fixture
def backups_are_set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("BACKUP_DIR", str(tmp_path))
    monkeypatch.setenv("BACKUP_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("well")
def test_where_all_is_well_nothing_is_said(look: Look) -> None:
    assert look().troubles() == []


@pytest.mark.usefixtures("well")
def test_a_backup_that_was_never_made_is_a_warning_until_the_first_night_has_passed(
    look: Look, backups_are_set_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "daily, drill, monthly, weekly"
    (trouble,) = [t for t in look().troubles() if "Backup" in t.alert]
    assert (trouble.severity, trouble.sentence) == ("warning", f"Not yet done, for the first night is yet to come: {names}.")
    monkeypatch.setattr(facts, "FIRST_SECONDS", -60)  # the table's age cannot be set
    (trouble,) = [t for t in look().troubles() if "Backup" in t.alert]
    assert (trouble.severity, trouble.sentence) == ("critical", f"Backups or drills are overdue: {names}, never done.")


@pytest.mark.usefixtures("well", "backups_are_set_up")
def test_archives_are_not_missed_where_there_is_no_passphrase_to_seal_them(
    look: Look, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BACKUP_PASSPHRASE_FILE")
    get_settings.cache_clear()
    for job in ("daily", "drill"):
        execute("INSERT INTO worker_backup_runs (job, outcome, milliseconds) VALUES (%(job)s, 'done', 1)", job=job)
    found = look()
    assert not [t for t in found.troubles() if t.alert == "ChatWorkersBackupStale"]
    scraped = samples(exposition(found).decode())
    assert value(scraped, "backup_last_success_timestamp_seconds", backup="weekly", tier="none") is None


@pytest.mark.usefixtures("well")
def test_a_stale_backup_says_how_old_it_is(look: Look, execute: Execute, backups_are_set_up: None) -> None:
    for job in ("daily", "weekly", "drill"):
        execute(
            "INSERT INTO worker_backup_runs (job, outcome, milliseconds, bytes, ended_at)"
            " VALUES (%(job)s, 'done', 1500, 12345, NOW(3) - INTERVAL 3 DAY)",
            job=job,
        )
    found = look()
    stale = [t.sentence for t in found.troubles() if t.alert == "ChatWorkersBackupStale"]
    assert "Backups or drills are overdue: daily, drill, last done 3 d ago." in stale
    assert not [sentence for sentence in stale if "weekly" in sentence]
    read = samples(exposition(found).decode())
    assert value(read, "backup_last_success_size_bytes", backup="daily", tier="none") == 12345
    assert value(read, "backup_last_success_duration_seconds", backup="daily", tier="none") == 1.5


@pytest.mark.usefixtures("well", "backups_are_set_up")
def test_dumps_each_hour_and_their_shipment_are_overdue_after_three(
    look: Look, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKUP_EVERY", "1h")
    monkeypatch.setenv("BACKUP_S3_SHIP", "daily")
    get_settings.cache_clear()
    for job, tier in (("daily", ""), ("weekly", ""), ("monthly", ""), ("drill", "daily"), ("ship", "daily")):
        execute(
            "INSERT INTO worker_backup_runs (job, tier, outcome, milliseconds, ended_at)"
            " VALUES (%(job)s, %(tier)s, 'done', 1, NOW(3) - INTERVAL 4 HOUR)",
            job=job,
            tier=tier,
        )
    (stale,) = [t.sentence for t in look().troubles() if t.alert == "ChatWorkersBackupStale"]
    assert stale == "Backups or drills are overdue: daily, ship, last done 4 h ago."


@pytest.mark.usefixtures("well")
def test_a_backup_from_the_future_does_not_hide_that_none_is_made(
    look: Look, execute: Execute, backups_are_set_up: None
) -> None:
    for job in ("daily", "weekly", "monthly", "drill"):
        execute(
            "INSERT INTO worker_backup_runs (job, outcome, milliseconds, ended_at)"
            " VALUES (%(job)s, 'done', 1, NOW(3) + INTERVAL %(days)s DAY)",
            job=job,
            days=400 if job == "daily" else 0,
        )
    (said,) = [t.sentence for t in look().troubles() if t.alert.startswith("ChatWorkersBackup")]
    assert said == "Not yet done, for the first night is yet to come: daily."


@pytest.mark.usefixtures("well")
def test_a_run_of_retention_that_was_killed_is_a_trouble_and_one_that_runs_is_none(
    look: Look, execute: Execute, chat: Engine
) -> None:
    lock = lock_of("typing_indicators")
    execute(
        "INSERT INTO worker_retention_runs (policy, started_by, rule, cutoff) VALUES ('typing_indicators', 'beat', 'x', NOW())"
    )
    with hold(chat, lock):
        assert look().troubles() == []
    while is_held(chat, lock):
        pass
    (killed,) = look().troubles()
    assert killed.sentence == "The last run of the retention policy typing_indicators did not end well: it died."


@pytest.mark.usefixtures("well")
def test_a_message_whose_sender_says_no_time_does_not_hide_the_age_of_those_behind_it(look: Look, redis: Redis) -> None:
    times = [orjson.dumps({"headers": {"sent_at": at}}) for at in (time.time() - 100, -1e308, 1e308, True)]
    redis.lpush("notifications", b'{"headers": {"id": "1"}}', *times)
    aged = samples(exposition(look()).decode())
    assert 100 <= (value(aged, "queue_oldest_message_age_seconds", queue="notifications") or 0) < 160


@pytest.mark.usefixtures("well")
def test_unacked_messages_are_counted_by_their_queue(look: Look, redis: Redis) -> None:
    for tag, queue in (("1", "notifications"), ("2", "notifications"), ("3", "backups")):
        redis.hset("unacked", tag, orjson.dumps([{}, queue, queue]))
        redis.zadd("unacked_index", {tag: time.time() - 50})
    found = samples(exposition(look()).decode())
    assert value(found, "queue_unacked_messages", queue="notifications") == 2
    assert value(found, "queue_unacked_messages", queue="backups") == 1
    assert (value(found, "queue_oldest_unacked_age_seconds") or 0) >= 50


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize("junk", [b"", b"not json", b"[1, 2]", b'{"headers": 5, "properties": []}', b"\xff" * 200_000])
def test_a_message_that_is_none_hides_nothing(look: Look, redis: Redis, junk: bytes) -> None:
    redis.lpush("notifications", junk)
    found = samples(exposition(look()).decode())
    assert value(found, "queue_messages", queue="notifications") == 1


@pytest.mark.usefixtures("well")
def test_messages_of_any_priority_count(look: Look, redis: Redis) -> None:
    redis.lpush("notifications\x06\x163", b"{}")
    assert value(samples(exposition(look()).decode()), "queue_messages", queue="notifications") == 1


@pytest.mark.usefixtures("well")
def test_no_content_and_no_token_is_shown(look: Look, execute: Execute) -> None:
    execute(NOTIFICATION, id=1, status="PENDING", age=600)
    found = look()
    assert "secret" not in exposition(found).decode() + repr(found.as_json())


@pytest.mark.usefixtures("well")
def test_the_exposition_has_each_series_once_and_few_label_values(look: Look) -> None:
    text = exposition(look()).decode()
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series)) < 250
    assert all(family.documentation for family in text_string_to_metric_families(text))
