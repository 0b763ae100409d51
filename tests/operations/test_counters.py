"""What processes count adds up over all of them, survives a Redis that is away, and has few label values."""

import os
from dataclasses import replace

import pytest
from redis import Redis

from devstack.stack import Stack
from tasks import counters
from tasks.attachments.facts import SCANS
from tasks.notifications import journal
from tasks.notifications.facts import DELIVERED_SECONDS, SEND_SECONDS, SETTLED
from tasks.notifications.outcome import Kind, Outcome
from tests.processes import fork
from workers.operations.counted import families, quantile, read
from workers.operations.snapshot import COUNTED

pytestmark = pytest.mark.usefixtures("own_counters")


def shown(redis: Redis) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the samples by name and label values."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families(read(redis, COUNTED), COUNTED)
        for sample in family.samples
    }


def test_increments_of_many_processes_add_up(redis: Redis) -> None:
    def count() -> None:
        counters.add(SETTLED, "SENT", amount=5)
        counters.observe(SEND_SECONDS, "fcm", seconds=0.02)
        counters.flush(at_once=True)

    for child in [fork(count) for _ in range(3)]:
        assert os.waitpid(child, 0)[1] == 0
    found = shown(redis)
    assert found["chat_workers_notifications_settled_total", ("SENT",)] == 15
    assert found["chat_workers_delivery_send_seconds_count", ("fcm",)] == 3
    assert found["chat_workers_delivery_send_seconds_sum", ("fcm",)] == pytest.approx(0.06)


def test_a_child_does_not_hand_on_what_its_parent_has_gathered(redis: Redis) -> None:
    counters.add(SETTLED, "SENT")
    os.waitpid(fork(lambda: counters.flush(at_once=True)), 0)
    counters.flush(at_once=True)
    assert shown(redis)["chat_workers_notifications_settled_total", ("SENT",)] == 1


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, "0.005"), (0.005, "0.005"), (0.0051, "0.01"), (10.0, "10.0"), (11.0, "+Inf")]
)
def test_a_duration_lies_in_the_first_bucket_that_is_no_shorter(redis: Redis, seconds: float, bucket: str) -> None:
    counters.observe(SEND_SECONDS, "fcm", seconds=seconds)
    counters.flush(at_once=True)
    by_bound = {labels[1]: n for (name, labels), n in shown(redis).items() if name.endswith("_bucket")}
    bounds = list(by_bound)
    assert [by_bound[bound] for bound in bounds] == [float(bounds.index(bound) >= bounds.index(bucket)) for bound in bounds]


def test_a_redis_that_is_away_keeps_nobody_and_loses_nothing(stack: Stack) -> None:
    with (
        Redis.from_url(stack.redis.url, socket_timeout=0.2, socket_connect_timeout=0.2) as hasty,
        Redis.from_url(stack.redis.url) as client,
    ):
        counters.flush_to(lambda: hasty)
        stack.redis.kill()
        try:
            counters.add(SETTLED, "SENT", amount=2)
            counters.flush(at_once=True)
            counters.add(SETTLED, "SENT", amount=3)
            counters.flush(at_once=True)  # does not even ask
        finally:
            stack.redis.start()
        counters.flush_to(lambda: client)
        client.delete(counters.KEY)
        counters._paused_until = 0.0
        counters.flush(at_once=True)
        assert counters.read(client, COUNTED) == {("notifications_settled", "SENT"): 5}


def test_what_redis_took_is_not_handed_on_again_with_what_it_refused(redis: Redis) -> None:
    refused = b'["notifications_settled","FAILED"]'
    redis.hset(counters.KEY, refused, "many")
    for status in ("SENT", "FAILED"):
        counters.add(SETTLED, status)
    counters.flush(at_once=True)
    redis.hdel(counters.KEY, refused)
    counters._paused_until = 0.0
    counters.flush(at_once=True)
    assert counters.read(redis, (SETTLED,)) == {("notifications_settled", "SENT"): 1, ("notifications_settled", "FAILED"): 1}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("fcm 404 NOT_FOUND UNREGISTERED", "fcm 404 NOT_FOUND UNREGISTERED"),
        ("fcm 400 INVALID_ARGUMENT (message.data[0])", "fcm 400 INVALID_ARGUMENT"),
        ("fcm gave no answer: connection to 10.0.0.7:443 refused", "fcm gave no answer"),
        ("no provider 'a1b2' is configured", "no provider"),
        ("waited 123456 ms", "waited # ms"),
        ("apns 410 Unregistered", "apns 410 Unregistered"),
        ("apns 400 Word17 Word18", "apns 400 other"),
        ("fcm 400 INVALID_ARGUMENT CODE_1639", "fcm 400 INVALID_ARGUMENT other"),
        ("x" * 500, "x" * 48),
    ],
)
def test_a_reason_is_cut_where_it_begins_to_vary(text: str, label: str) -> None:
    assert journal.label(text) == label


def test_whoever_answers_in_a_providers_place_makes_no_label_of_each_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_labels", set())
    words = ["".join(chr(ord("A") + int(digit)) for digit in str(number)) for number in range(100, 1000)]
    labels = {journal.label(f"apns 400 Bad{word}") for word in words}
    assert len(labels) == journal.MOST_LABELS + 1


def test_a_provider_that_is_none_of_ours_has_no_label_of_its_own(redis: Redis) -> None:
    journal.count([("made-up-by-a-client", Outcome(Kind.REFUSED, "no"), 0.1, 0.1)])
    counters.flush(at_once=True)
    assert ("chat_workers_deliveries_total", ("other", "refused", "no")) in shown(redis)


def test_what_alerts_ask_for_is_there_before_it_happens(redis: Redis) -> None:
    """And again once Redis has lost its data: a series that begins at 1 has increased by nothing."""
    for _ in range(2):
        found = shown(redis)
        assert found["chat_workers_scans_total", ("infected",)] == 0
        assert found["chat_workers_tasks_total", ("tasks.backups.daily", "failed")] == 0
        assert found["chat_workers_tasks_total", ("tasks.attachments.scan", "killed")] == 0
        assert found["chat_workers_deliveries_total", ("fcm", "unavailable", "")] == 0
        counters.add(SCANS, "infected")
        counters.flush(at_once=True)
        assert shown(redis)["chat_workers_scans_total", ("infected",)] == 1
        redis.flushdb()


def test_the_first_worker_of_a_minute_makes_its_sample(redis: Redis) -> None:
    (name,) = redis.keys(f"{counters.SAMPLE}*")
    count(redis)
    counters._next_sample = 0.0
    counters.sample()
    assert redis.hgetall(name) == {b"[]": b"0"}
    assert 0 < redis.ttl(name) <= counters.SAMPLES * 60


def test_a_window_begins_with_the_newest_sample_that_is_old_enough(redis: Redis) -> None:
    """Else with the oldest. Where no worker made samples nothing was counted either, so the next older one will do."""
    for minutes in (20, 12, 5):
        count(redis)
        redis.copy(counters.KEY, f"{counters.SAMPLE}{redis.time()[0] // 60 - minutes}")
    count(redis)
    assert [grown(redis, minutes) for minutes in (5, 10, 15, 30)] == [1, 2, 3, 3]


def test_counters_that_began_anew_have_grown_by_what_they_are(redis: Redis) -> None:
    count(redis)
    count(redis)
    redis.copy(counters.KEY, f"{counters.SAMPLE}{redis.time()[0] // 60 - 10}")
    redis.delete(counters.KEY)
    count(redis)
    assert grown(redis, 10) == 1


def test_without_a_sample_of_the_last_hour_nothing_is_said_to_have_grown(redis: Redis) -> None:
    count(redis)
    redis.delete(*redis.keys(f"{counters.SAMPLE}*"))
    assert all(not rows for rows in read(redis, COUNTED).windows.values())


def count(redis: Redis) -> None:
    counters.add(SCANS, "infected")
    counters.flush(at_once=True)


def grown(redis: Redis, minutes: int) -> float:
    assert SCANS.alert
    rows = read(redis, [replace(SCANS, alert=replace(SCANS.alert, window=minutes))]).windows["scans"]
    return next(float(row["scans"]) for row in rows if row["verdict"] == "infected")


def test_the_last_hour_is_told_by_minutes_and_what_nobody_sampled_is_not_known(redis: Redis) -> None:
    redis.delete(*redis.keys(f"{counters.SAMPLE}*"))
    now = redis.time()[0] // 60
    for age, waiting in ((8, 700), (7, 500), (3, 40)):
        redis.copy(counters.KEY, f"{counters.SAMPLE}{now - age}")
        redis.hset(f"{counters.SAMPLE}{now - age}", b'["waiting"]', waiting)
        for provider in ("fcm", "apns"):
            for _ in range(age):
                counters.observe(DELIVERED_SECONDS, provider, seconds=0.5)
        counters.flush(at_once=True)
    hour = read(redis, COUNTED).hour
    told = {59 - place: (row["pushes"], row["waiting"]) for place, row in enumerate(hour) if row}
    assert (len(hour), told) == (60, {8: (16, 700), 7: (14, 500), 3: (6, 40)})
    assert hour[-9]["within_seconds"] == pytest.approx(0.95)


def test_a_gauge_is_measured_by_the_first_that_asks_in_a_minute(redis: Redis) -> None:
    for measured in (7, 8):
        counters._next_sample = 0.0
        counters.sample(waiting=lambda measured=measured: measured)  # type: ignore[misc]
    (name,) = redis.keys(f"{counters.SAMPLE}*")
    assert redis.hget(name, b'["waiting"]') == b"7"


@pytest.mark.parametrize(
    ("counts", "percentile"),
    [({}, None), ({"0.005": 100}, 0.00475), ({"0.005": 90, "10.0": 10}, 7.5), ({"0.005": 90, "+Inf": 10}, 10.0)],
)
def test_a_percentile_is_estimated_as_prometheus_does(counts: dict[str, float], percentile: float | None) -> None:
    assert quantile(SEND_SECONDS, counts) == (None if percentile is None else pytest.approx(percentile))
