"""From the API's commit and nudge to the provider's socket: rows written one by one, on an idle system and under load."""

import math
import os
import random
import statistics
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from sqlalchemy import text

from bench.notifications.contestants import ours
from bench.notifications.field import Field
from tasks.notifications.task import NUDGE_EXPIRES_SECONDS

INSERT = """
    INSERT INTO chat_notifications (id, conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens)
    SELECT %s, conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens FROM bench_rows WHERE id = %s
"""
FIRST_ID = 100_000_000
PATIENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the commit's return, and the nudge after it, to the message's arrival at the endpoint."""

    name: str
    rows: int
    lost: int
    p50: float
    p99: float
    worst: float
    samples: list[float]


def measure(field: Field, rows: int) -> list[Latency]:
    """Measure `rows` rows in each situation, with two worker processes."""
    return [
        _measure(field, "idle, 10 rows/s", rows, 10, 1),
        _measure(field, "steady, 100 rows/s", rows * 3, 100, 1),
        _measure(field, "steady, 500 rows/s", rows * 10, 500, 3),
        _measure(field, f"behind {field.rows:,} system rows, 30 rows/s", rows, 30, 1, backlog=field.rows),
    ]


def behind(field: Field, place: str, results: Path) -> str:
    """Measure the chat behind a backlog of all the field's rows, all SYSTEM; write what was found, and return it."""
    found = _measure(field, f"behind {field.rows:,} system rows, 30 rows/s", 900, 30, 1, backlog=field.rows)
    with field.engine.connect() as connection:
        left = connection.execute(
            text("SELECT COUNT(*) FROM chat_notifications WHERE delivery_status = 'PENDING'")
        ).scalar_one()
    lines = [
        f"measured: {place}; at the end {os.getloadavg()[0]:.1f}",
        f"command: python -m bench.notifications --part behind --rows {field.rows}",
        f"{found.name}: {found.rows} messages, {found.lost} lost; from the commit to the provider's socket"
        f" p50 {found.p50:.0f} ms, p99 {found.p99:.0f} ms, at most {found.worst:.0f} ms",
        f"two worker processes; of the backlog {field.rows - left:,} were sent meanwhile, {left:,} waited still",
    ]
    shown = "\n".join(lines) + "\n"
    (results / "behind.txt").write_text(shown)
    return shown


def _measure(field: Field, name: str, rows: int, per_second: float, clients: int, backlog: int = 0) -> Latency:
    field.reset(backlog)
    with field.engine.begin() as connection:
        connection.execute(text("UPDATE chat_notifications SET notification_type = 'SYSTEM'"))
    committed: dict[str, float] = {}
    with field.running(ours(2)), Celery(broker=field.stack.redis.url, set_as_current=False) as api:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not api.control.ping(timeout=0.2):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no worker was ready within {PATIENCE_SECONDS} s")
        _write(field, FIRST_ID - 20, 20, 5, {})  # both processes have made their connections
        threads = [
            threading.Thread(
                target=_write, args=(field, FIRST_ID + client * rows, rows // clients, per_second / clients, committed)
            )
            for client in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while time.monotonic() < deadline + PATIENCE_SECONDS + rows / per_second:
            arrived = {message.notification_id: message.t for message in field.emulator.accepted()}
            if all(id_ in arrived for id_ in committed):
                break
            time.sleep(0.5)
    samples = sorted((arrived[id_] - at) * 1000 for id_, at in committed.items() if id_ in arrived)
    lost = len(committed) - len(samples)
    if lost:
        print(f"{name}: {lost} rows did not arrive", file=sys.stderr)
    return Latency(name, len(samples), lost, statistics.median(samples), _quantile(samples, 0.99), samples[-1], samples)


def _write(field: Field, first: int, rows: int, per_second: float, committed: dict[str, float]) -> None:
    """Be an API process: write a row, commit, nudge; at the given rate, with a person's irregularity."""
    chance = random.Random(first)
    api = Celery(broker=field.stack.redis.url, set_as_current=False)
    connection = field.engine.raw_connection()
    try:
        with closing(connection.cursor()) as cursor, api.producer_pool.acquire(block=True) as producer:
            for id_ in range(first, first + rows):
                cursor.execute(INSERT, (id_, chance.randint(1, field.rows)))
                connection.commit()
                committed[str(id_)] = time.time()
                api.send_task(
                    "tasks.notifications.drain",
                    queue="notifications",
                    expires=NUDGE_EXPIRES_SECONDS,
                    ignore_result=True,
                    producer=producer,
                )
                time.sleep(chance.uniform(0.2, 1.8) / per_second)
    finally:
        connection.close()


def _quantile(values: list[float], share: float) -> float:
    return values[max(math.ceil(len(values) * share) - 1, 0)]
