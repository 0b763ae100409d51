"""Each condition that an operator must hear of is a sentence at the top of the status page and of `chat-workers status`."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from settings import get_settings
from tasks.jobs import QUEUES
from tests.operations.conftest import samples, value
from workers.operations import fleet
from workers.operations.exposition import exposition
from workers.operations.picture import Picture
from workers.operations.queues import HEADS

Look = Callable[[], Picture]
Execute = Callable[..., None]

NOTIFICATION = (
    "INSERT INTO chat_notifications (id, conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens,"
    " delivery_status, created_at) VALUES (%(id)s, 1, 1, 2, 1, 'secret title', 'secret body', '[\"secret-token\"]',"
    " %(status)s, NOW() - INTERVAL %(age)s SECOND)"
)
CHAT = (
    "INSERT INTO users (id, first_name, last_name) VALUES (1, 'A', 'B'), (2, 'C', 'D')",
    "INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id) VALUES (1, 'c', 1, 2)",
    "INSERT INTO messages (id, message_id, conversation_id, sender_id) VALUES (1, 'm', 1, 1)",
)


@pytest.fixture
def well(redis: Redis, execute: Execute) -> None:
    """Workers for all queues and a beat that has sent everything; so much as needs no process."""
    from redbeat import RedBeatSchedulerEntry

    from workers.app import app

    for statement in CHAT:
        execute(statement)
    fleet.announce(redis, fleet.Worker("all@test", alive=True, queues=list(QUEUES), processes=2))
    redis.set("chat-workers:beat::lock", "held")
    for name, entry in app.conf.beat_schedule.items():
        RedBeatSchedulerEntry(name, entry["task"], entry["schedule"], app=app).save()


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


def old_backlog(execute: Execute, _redis: Redis) -> None:
    execute(NOTIFICATION, id=1, status="PENDING", age=600)


def overdue_retries(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_deliveries (notification_id, due_at) VALUES (1, NOW(3) - INTERVAL 5 MINUTE)")


def open_breaker(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_providers (provider, opened_at, reason) VALUES ('fcm', NOW(3) - INTERVAL 130 SECOND, 'fcm 503')"
    )


def failing_deliveries(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_delivery_counts (minute, provider, outcome, reason, devices)"
        " VALUES (DATE_FORMAT(NOW(), '%%Y-%%m-%%d %%H:%%i:00'), 'fcm', 'sent', '', 60),"
        " (DATE_FORMAT(NOW(), '%%Y-%%m-%%d %%H:%%i:00'), 'fcm', 'unavailable', 'fcm 503', 40)"
    )


def overdue_scans(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_scans (attachment_id, due_at) VALUES (1, NOW(3) - INTERVAL 10 MINUTE)")


def unverified(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_scans (attachment_id, verdict) VALUES (1, 'unverified')")


def failed_backup(execute: Execute, _redis: Redis) -> None:
    execute("INSERT INTO worker_backup_runs (job, outcome, milliseconds, detail) VALUES ('daily', 'failed', 1, 'disk full')")


def failed_retention(execute: Execute, _redis: Redis) -> None:
    execute(
        "INSERT INTO worker_retention_runs (policy, started_by, ended_at, ended_because, rule, cutoff)"
        " VALUES ('read_notifications', 'beat', NOW(3), 'failed: lost connection', 'x', NOW())"
    )


def no_consumer(_execute: Execute, redis: Redis) -> None:
    fleet.announce(redis, fleet.Worker("all@test", alive=True, queues=["housekeeping"], processes=1))


def stuck_queue(_execute: Execute, redis: Redis) -> None:
    redis.lpush("notifications", orjson.dumps({"headers": {"sent_at": time.time() - 900}, "properties": {"delivery_tag": "x"}}))


def stray_message(_execute: Execute, redis: Redis) -> None:
    redis.lpush("celery", b"{}")


def lost_worker(_execute: Execute, redis: Redis) -> None:
    fleet.announce(redis, fleet.Worker("other@test", alive=True))
    redis.delete("chat-workers:worker:other@test")


def no_beat(_execute: Execute, redis: Redis) -> None:
    redis.delete("chat-workers:beat::lock")


def late_beat(_execute: Execute, redis: Redis) -> None:
    meta = {"last_run_at": {"__type__": "datetime", "year": 2026, "month": 1, "day": 1, "hour": 0, "minute": 0}}
    redis.hset("chat-workers:beat:notifications-drain", "meta", orjson.dumps(meta))


def unknown_entry(_execute: Execute, redis: Redis) -> None:
    redis.delete("chat-workers:beat:notifications-drain")


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("cause", "alert", "words"),
    [
        (old_backlog, "ChatWorkersBacklogOld", "1 notifications wait to be sent, the oldest for 10 min"),
        (overdue_retries, "ChatWorkersRetriesOverdue", "due for another try, the first for 5 min"),
        (open_breaker, "ChatWorkersBreakerOpen", "Nothing is sent to fcm for 2 min: fcm 503"),
        (failing_deliveries, "ChatWorkersDeliveriesFailing", "40% of the messages"),
        (overdue_scans, "ChatWorkersScansOverdue", "1 uploads wait for their scan, the oldest for 10 min"),
        (unverified, "ChatWorkersAttachmentsUnverified", "could not be scanned"),
        (failed_backup, "ChatWorkersBackupFailed", "The last daily failed: disk full"),
        (failed_retention, "ChatWorkersRetentionFailed", "read_notifications failed: lost connection"),
        (no_consumer, "ChatWorkersQueueWithoutWorker", "No worker takes from the queue notifications"),
        (stuck_queue, "ChatWorkersQueueStuck", "1 message in the queue notifications has waited for 15 min"),
        (stray_message, "ChatWorkersStrayMessages", "1 message lie in the queue celery"),
        (lost_worker, "ChatWorkersWorkerLost", "The worker other@test has gone silent"),
        (no_beat, "ChatWorkersBeatDown", "nothing is started by the schedule"),
        (late_beat, "ChatWorkersBeatLate", "notifications-drain by"),
        (unknown_entry, "ChatWorkersBeatEntryUnknown", "notifications-drain"),
    ],
    ids=lambda cause: cause.__name__ if callable(cause) else "",
)
def test_each_condition_is_one_sentence(
    look: Look, execute: Execute, redis: Redis, cause: Callable[[Execute, Redis], None], alert: str, words: str
) -> None:
    cause(execute, redis)
    (trouble,) = look().troubles()
    assert trouble.alert == alert
    assert words in trouble.sentence


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(("url", "missed"), [("file:///srv/uploads", 1), ("", 0)])
def test_uploads_are_missed_though_no_worker_has_made_entries_for_them(
    look: Look, execute: Execute, monkeypatch: pytest.MonkeyPatch, url: str, missed: int
) -> None:
    """Where uploads are scanned at all."""
    for number, (scanned, age) in enumerate([(0, 600), (1, 600), (0, 10 * 86_400)], 1):
        execute(
            "INSERT INTO message_attachments"
            " (id, message_id, file_name, file_url, uploaded_by_id, scanned_for_virus, created_at)"
            " VALUES (%(id)s, 1, 'a', '/a', 1, %(scanned)s, NOW() - INTERVAL %(age)s SECOND)",
            id=number, scanned=scanned, age=age,
        )  # fmt: skip
    monkeypatch.setenv("ATTACHMENTS_URL", url)
    get_settings.cache_clear()
    found = look()
    get_settings.cache_clear()
    assert [t.sentence for t in found.troubles() if t.alert == "ChatWorkersScansOverdue"] == [
        "1 uploads wait for their scan, the oldest for 10 min; they are not served meanwhile."
    ] * missed
    assert value(samples(exposition(found).decode()), "attachments_due", lane="uploads") == missed


@pytest.mark.usefixtures("well")
def test_a_backup_that_is_set_up_and_was_never_made_is_a_trouble(look: Look, backups_are_set_up: None) -> None:
    assert {t.sentence for t in look().troubles() if t.alert == "ChatWorkersBackupStale"} == {
        f"There is no recent {what}. None was ever done."
        for what in ("daily backup", "weekly backup", "monthly backup", "restore drill")
    }


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
    assert "There is no recent daily backup. The last was done 3 d ago." in stale
    assert not [sentence for sentence in stale if "weekly" in sentence]
    read = samples(exposition(found).decode())
    assert value(read, "backup_last_success_size_bytes", backup="daily", tier="none") == 12345
    assert value(read, "backup_last_success_duration_seconds", backup="daily", tier="none") == 1.5


@pytest.mark.usefixtures("well")
def test_a_message_whose_sender_says_no_time_ages_from_when_it_was_first_seen(look: Look, redis: Redis) -> None:
    redis.lpush("notifications", b'{"headers": {"id": "1"}, "properties": {"delivery_tag": "a"}}')
    look()
    seen = orjson.loads(redis.hgetall(HEADS)[b"a"])
    redis.hset(HEADS, "a", seen - 100)
    aged = samples(exposition(look()).decode())
    assert 100 <= (value(aged, "queue_oldest_message_age_seconds", queue="notifications") or 0) < 160
    redis.lpush("notifications", b'{"headers": {"id": "2"}, "properties": {"delivery_tag": "b"}}')
    redis.rpop("notifications")
    next_one = samples(exposition(look()).decode())
    assert (value(next_one, "queue_oldest_message_age_seconds", queue="notifications") or 0) < 60


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
def test_a_huge_message_is_not_fetched_at_each_look(look: Look, redis: Redis) -> None:
    redis.lpush("notifications", b"x" * 5_000_000)
    before = redis.info("stats")["total_net_output_bytes"]
    found = samples(exposition(look()).decode())
    assert value(found, "queue_messages", queue="notifications") == 1
    assert redis.info("stats")["total_net_output_bytes"] - before < 500_000


@pytest.mark.usefixtures("well")
def test_a_redis_user_who_may_not_look_at_strays_sees_all_else(
    look: Look, redis: Redis, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.operations import picture

    rules = ["resetkeys", "~notifications*", "~attachments*", "~housekeeping*", "~backups*", "~unacked*", "~chat-workers:*"]
    redis.acl_setuser("looker", enabled=True, nopass=True, commands=["+@all"], reset=True)
    redis.execute_command("ACL", "SETUSER", "looker", *rules)  # type: ignore[no-untyped-call]
    host, port = redis.connection_pool.connection_kwargs["host"], redis.connection_pool.connection_kwargs["port"]
    with Redis(host=host, port=port, username="looker", password="any") as looker:
        monkeypatch.setattr(picture, "client", lambda: looker)
        found = look()
    redis.acl_deluser("looker")
    assert all(reading.ok for reading in found.readings)
    assert value(samples(exposition(found).decode()), "queue_messages", queue="celery") is None


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
    assert len(series) == len(set(series)) < 200
    assert all(family.documentation for family in text_string_to_metric_families(text))
