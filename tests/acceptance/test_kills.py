"""Two workers killed again and again, with providers that fail in every way: nothing is lost, and repeats are counted."""

import random
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from devstack.chat import load_chat
from devstack.emulators.client import Emulator, Fault
from tests.acceptance.audit import audit
from tests.acceptance.conftest import Worker, wait_until

ROWS = 20_000
KILLS = 6
FAULTS = (
    Fault(kind="unregistered", token="dead-*"),
    Fault(kind="unavailable", probability=0.03, seed=1, times=1),
    Fault(kind="internal", probability=0.03, seed=2, times=1),
    Fault(kind="reset", probability=0.0005, seed=3, times=1),
    Fault(kind="bad_gateway", probability=0.01, seed=4, times=1),
    Fault(kind="slow", probability=0.002, seed=5, latency=1.5),
)


@pytest.mark.timeout(300)
def test_twenty_thousand_rows_survive_random_kills(
    chat: Engine, emulator: Emulator, start_worker: Callable[..., Worker], tick: Callable[[], None]
) -> None:
    chance = random.Random(20)
    emulator.inject(*FAULTS)
    with chat.begin() as connection:
        load_chat(connection, users=500, conversations=1000, notifications=ROWS, quiet=0.02, bad_tokens=0.02)

    under_way = 0
    for kill in range(KILLS):
        workers = [start_worker(f"{name}-{kill}") for name in ("left", "right")]
        sent = emulator.stats().requests()
        tick()
        tick()
        goal = sent + chance.randint(200, 3000)
        wait_until(lambda goal=goal: emulator.stats().requests() > goal or _done(chat), "work was under way")  # type: ignore[misc]
        for worker in workers:
            worker.kill()
        _wait_until_alone(chat)
        under_way += _end_leases(chat)

    for name in ("left", "right"):
        start_worker(f"{name}-last")

    def ticked() -> bool:
        tick()
        return _done(chat)

    wait_until(ticked, "every row was settled", 150)
    counted = audit(chat, emulator)
    assert counted.lost == 0
    assert counted.repeated <= under_way
    assert _one(chat, "SELECT COUNT(*) FROM worker_deliveries") == 0


def _done(engine: Engine) -> bool:
    return not _one(engine, "SELECT EXISTS (SELECT 1 FROM chat_notifications WHERE delivery_status IN ('PENDING', 'FAILED'))")


def _wait_until_alone(engine: Engine) -> None:
    """Wait until the server has noticed that the killed workers are gone: what they had sent is then done or undone."""
    ours = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    engine.dispose()
    wait_until(lambda: _one(engine, ours) == 0, "the workers' connections were gone")


def _end_leases(engine: Engine) -> int:
    """Let the lease time of the dead workers pass; return how many devices their rows have: what may be repeated."""
    devices = _one(
        engine,
        "SELECT COALESCE(SUM(JSON_LENGTH(n.device_tokens)), 0) FROM worker_deliveries d"
        " JOIN chat_notifications n ON n.id = d.notification_id WHERE d.lease IS NOT NULL",
    )
    with engine.begin() as connection:
        connection.execute(text("UPDATE worker_deliveries SET due_at = NOW(3) WHERE lease IS NOT NULL"))
    return devices


def _one(engine: Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())
