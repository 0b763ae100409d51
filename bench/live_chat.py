"""Live API traffic for benchmarks: inserts and mark-as-reads at times of their own, latency counted from when each was due.

The clients are an API on another machine, so they must not wait for a CPU that the contestants share with them: they run at
real-time priority where the kernel allows it (as root), and what is measured is the server's doing alone.
"""

import math
import multiprocessing
import os
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

import pymysql
from sqlalchemy.engine import make_url

INSERT = (
    "INSERT INTO chat_notifications (conversation_id, message_id, recipient_id, sender_id, title, body)"
    " VALUES (%s, 1, %s, %s, 'New message', 'When can you deliver?')"
)
MARK_AS_READ = "UPDATE chat_notifications SET is_read = true, read_at = NOW() WHERE id = %s"


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds; `failed` statements are those that the server gave up on, counted with the time that they took."""

    p50: float
    p99: float
    worst: float
    statements: int
    failed: int


# When it was due (time.monotonic()), how many seconds it took from then on, whether the server did it.
Sample = tuple[float, float, bool]


class Traffic:
    """What the clients saw; complete once the context of `live_traffic` has ended."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []

    def between(self, began: float, ended: float) -> list[Sample]:
        """Return the statements that were due in this time (time.monotonic())."""
        return [sample for sample in self.samples if began <= sample[0] < ended]


def latency(samples: Iterable[Sample]) -> Latency:
    """Return what clients saw in these samples, of one round or of several."""
    taken = list(samples)
    latencies = sorted(seconds * 1000 for _, seconds, _ in taken)
    return Latency(
        _quantile(latencies, 0.5), _quantile(latencies, 0.99), latencies[-1], len(taken), sum(not ok for *_, ok in taken)
    )


def _quantile(values: list[float], share: float) -> float:
    return values[max(math.ceil(len(values) * share) - 1, 0)]


@contextmanager
def live_traffic(url: str, *, clients: int = 8, per_second: float = 400, read_from: int, users: int) -> Iterator[Traffic]:
    """Run the clients in processes of their own; `read_from` is the id from which on rows are marked as read."""
    with multiprocessing.Manager() as manager:
        samples, stop = manager.list(), multiprocessing.Event()
        processes = [
            multiprocessing.Process(
                target=_client, args=(url, n, per_second / clients, read_from, users, samples, stop), daemon=True
            )
            for n in range(clients)
        ]
        for process in processes:
            process.start()
        traffic = Traffic()
        try:
            yield traffic
        finally:
            stop.set()
            for process in processes:
                process.join(30)
            traffic.samples = list(samples)


def _client(url: str, seed: int, per_second: float, read_from: int, users: int, samples: Any, stop: Event) -> None:
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    where, chance = make_url(url), random.Random(seed)
    connection = pymysql.connect(
        host=where.host,
        port=where.port or 3306,
        user=where.username,
        password=where.password or "",
        database=where.database,
        autocommit=True,
        read_timeout=60,
    )
    taken: list[Sample] = []
    due = time.monotonic() + chance.random() / per_second
    with connection, connection.cursor() as cursor:
        while not stop.is_set():
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            try:
                if chance.random() < 0.5:
                    cursor.execute(INSERT, (chance.randint(1, users // 2), chance.randint(1, users), chance.randint(1, users)))
                else:
                    cursor.execute(MARK_AS_READ, (read_from + chance.randrange(100_000),))
                ok = True
            except pymysql.OperationalError:
                ok = False
            taken.append((due, time.monotonic() - due, ok))
            # Whatever became of this one, the next is due at its own time.
            due += chance.uniform(0.5, 1.5) / per_second
            if len(taken) >= 50:
                samples.extend(taken)
                taken.clear()
    samples.extend(taken)
