"""Two workers killed again and again, with providers that fail in every way: nothing is lost, and repeats are counted."""

import json
import random
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from devstack.chat import load_chat
from devstack.emulators.client import Emulator, Fault
from tests.acceptance.audit import audit
from tests.processes import Process, wait_until

# A row's id and a token in it.
Device = tuple[str, str]

ROWS = 10_000
KILLS = 4
# What one process has under way, at most on the one connection that a reset ends.
IN_FLIGHT = 100
FAULTS = (
    Fault(kind="unregistered", token="dead-*"),
    Fault(kind="unavailable", probability=0.03, seed=1, times=1),
    Fault(kind="internal", probability=0.03, seed=2, times=1),
    Fault(kind="reset", probability=0.0005, seed=3, times=1),
    Fault(kind="bad_gateway", probability=0.01, seed=4, times=1),
    Fault(kind="slow", probability=0.002, seed=5, latency=1.5),
)


@pytest.mark.timeout(900)
def test_ten_thousand_rows_survive_random_kills(
    chat: Engine, emulator: Emulator, start_worker: Callable[..., Process], tick: Callable[[], None]
) -> None:
    chance = random.Random(20)
    emulator.inject(*FAULTS)
    with chat.begin() as connection:
        load_chat(connection, users=500, conversations=1000, notifications=ROWS, quiet=0.02, bad_tokens=0.02)

    allowed: dict[Device, int] = {}
    for kill in range(KILLS):
        workers = _start_both(start_worker, str(kill))
        sent = emulator.stats().requests()
        tick()
        tick()
        goal = sent + chance.randint(100, 1500)
        wait_until(lambda goal=goal: emulator.stats().requests() > goal or _done(chat), "work was under way")  # type: ignore[misc]
        for worker in workers:
            worker.kill()
        assert not _done(chat), "the kill met workers without work"
        _wait_until_alone(chat)
        wait_until(lambda: emulator.stats().in_flight == 0, "the providers were done with what was sent")
        accepted = _accepted(emulator)
        for device in accepted.keys() & _end_leases(chat):
            # The kill took the result of what was accepted, so it is sent once more.
            allowed[device] = min(accepted[device], allowed.get(device, 1)) + 1

    _start_both(start_worker, "last")

    def ticked() -> bool:
        tick()
        return _done(chat)

    wait_until(ticked, "every row was settled", 400, every=0.5)
    counted = audit(chat, emulator)
    assert counted.lost == 0
    beyond = sum(max(0, times - allowed.get(device, 1)) for device, times in _accepted(emulator).items())
    print(
        counted,
        sum(allowed.values()) - len(allowed),
        beyond,
        emulator.stats().count("reset"),
        emulator.stats().outcomes,
    )
    # A reset takes the answers to others along that were on their way over its connection.
    assert beyond <= IN_FLIGHT * emulator.stats().count("reset")
    assert _one(chat, "SELECT COUNT(*) FROM worker_deliveries") == 0


def _start_both(start_worker: Callable[..., Process], name: str) -> list[Process]:
    workers = [start_worker(f"{side}-{name}", wait=False) for side in ("left", "right")]
    return [worker.wait_ready() for worker in workers]


def _done(engine: Engine) -> bool:
    return not _one(engine, "SELECT EXISTS (SELECT 1 FROM chat_notifications WHERE delivery_status IN ('PENDING', 'FAILED'))")


def _wait_until_alone(engine: Engine) -> None:
    """Wait until the server has noticed that the killed workers are gone: what they had sent is then done or undone."""
    ours = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    engine.dispose()
    wait_until(lambda: _one(engine, ours) == 0, "the workers' connections were gone")


def _end_leases(engine: Engine) -> set[Device]:
    """Let the lease time of the dead workers pass; return the devices of their rows.

    Kills come every few seconds here: by chance a row is in hand at five of them, and would be given up, as one that kills.
    """
    with engine.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT n.id, n.device_tokens FROM worker_deliveries d"
                " JOIN chat_notifications n ON n.id = d.notification_id WHERE d.lease IS NOT NULL"
            )
        ).all()
        connection.execute(
            text("UPDATE worker_deliveries SET due_at = NOW(3), claims = LEAST(claims, 4) WHERE lease IS NOT NULL")
        )
    return {(str(row.id), token) for row in rows for token in json.loads(row.device_tokens)}


def _accepted(emulator: Emulator) -> Counter[Device]:
    """Return how many times the providers accepted the push to each device."""
    return Counter((str(message.notification_id), message.token) for message in emulator.accepted())


def _one(engine: Engine, statement: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one())
