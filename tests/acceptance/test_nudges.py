"""However many nudges wait, few drains run, and no row is left behind for it."""

from collections.abc import Callable
from typing import Any, cast

from celery import Celery
from redis import Redis
from sqlalchemy import Engine, text

from devstack.emulators.client import Emulator, Fault
from tests.acceptance.audit import audit
from tests.processes import Process, wait_until

NUDGES = 10_000


def _drains(environment: dict[str, str]) -> int:
    """Return how many drains the one worker has begun."""
    inspect = Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False).control.inspect(timeout=5)
    replies: list[Any] = []

    def answered() -> bool:
        replies.extend((inspect.stats() or {}).values())
        return bool(replies)

    wait_until(answered, "the worker answered")
    return int(replies[0]["total"]["tasks.notifications.drain"])


def _waiting(redis: Redis) -> list[str]:
    return [message.decode() for message in cast(list[bytes], redis.lrange("notifications", 0, -1))]


def _unsent(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(
            connection.execute(text("SELECT COUNT(*) FROM chat_notifications WHERE delivery_status <> 'SENT'")).scalar_one()
        )


def test_a_burst_of_ten_thousand_nudges_costs_a_handful_of_drains(
    chat: Engine,
    environment: dict[str, str],
    redis: Redis,
    nudge: Callable[[], None],
    load: Callable[[int], None],
    start_worker: Callable[..., Process],
    emulator: Emulator,
) -> None:
    load(20)
    nudge()
    [message] = _waiting(redis)
    # As many copies of what the API sends, each with a delivery tag of its own.
    tag = '"delivery_tag": "'
    before, after = message.split(tag)
    with redis.pipeline(transaction=False) as pipeline:
        for number in range(NUDGES):
            pipeline.lpush("notifications", f"{before}{tag}{number:06d}{after[6:]}")
        pipeline.execute()
    start_worker()
    wait_until(lambda: not _unsent(chat) and not redis.llen("notifications"), "all was sent and no nudge waited")
    wait_until(lambda: not redis.hlen("unacked"), "the last drain had ended")
    # Each process has one nudge in hand and one ahead when the first drain takes the rest.
    assert _drains(environment) <= 6
    assert audit(chat, emulator).lost == 0


def test_a_nudge_that_comes_during_a_drain_is_kept_for_another(
    chat: Engine,
    environment: dict[str, str],
    redis: Redis,
    nudge: Callable[[], None],
    load: Callable[[int], None],
    start_worker: Callable[..., Process],
    emulator: Emulator,
) -> None:
    start_worker(processes=1)
    load(20)
    emulator.inject(Fault(kind="slow", latency=5))
    nudge()
    wait_until(lambda: emulator.stats().in_flight > 0, "the drain was under way")
    emulator.clear()
    for _ in range(5):
        load(20)
        nudge()
    wait_until(lambda: not _unsent(chat), "the later rows were sent without a tick")
    wait_until(lambda: not redis.llen("notifications") and not redis.hlen("unacked"), "no nudge was left")
    # Whether or not the first drain came to the later rows too: it took none of their nudges.
    assert _drains(environment) >= 2


def test_a_drain_that_finds_a_backlog_calls_for_help(
    chat: Engine,
    environment: dict[str, str],
    redis: Redis,
    nudge: Callable[[], None],
    load: Callable[[int], None],
    start_worker: Callable[..., Process],
) -> None:
    load(1500)
    start_worker(processes=2)
    nudge()
    wait_until(lambda: not _unsent(chat), "all rows were sent")
    wait_until(lambda: not redis.llen("notifications") and not redis.hlen("unacked"), "the call was answered")
    assert _drains(environment) in {2, 3}
