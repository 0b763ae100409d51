"""`python -m bench.operations`: what a scrape costs the database on big tables, and what counting costs a drain."""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
from sqlalchemy import Engine, text

from bench.place import place
from db.create import create_shared_schema
from db.engine import get_engine
from db.migrate import migrate
from devstack.stack import Stack
from settings import get_settings
from tasks import counters
from tasks.notifications import journal
from tasks.notifications.outcome import Kind, Outcome

RESULTS = Path(__file__).parent / "results"
SCRAPES = 15
MESSAGES = 10_000
CHUNK = 200_000

# Of ten rows seven are SENT, two PENDING and one FAILED: the backlog of a bad day.
NOTIFICATIONS = """
    INSERT INTO chat_notifications
      (id, conversation_id, message_id, recipient_id, sender_id, title, body, delivery_status, device_tokens)
    SELECT seq, 1, 1, 1, 2, 'New message', 'When can you deliver? The customs office wants both papers before noon.',
           ELT(1 + seq %% 10, 'FAILED', 'PENDING', 'PENDING', 'SENT', 'SENT', 'SENT', 'SENT', 'SENT', 'SENT', 'SENT'),
           '["token-of-a-device-with-a-usual-length-of-about-140-characters-as-those-of-fcm-are"]'
    FROM seq_{first}_to_{last}
"""
DELIVERIES = """
    INSERT INTO worker_deliveries (notification_id, due_at, waiting_on, devices, reason)
    SELECT seq, NOW(3) - INTERVAL 300 SECOND + INTERVAL seq %% 600 SECOND, IF(seq %% 2, 'fcm', ''), '{{"fcm:x": ["waiting", 1, 0, "fcm 503"]}}', 'fcm 503'
    FROM seq_{first}_to_{last} WHERE seq %% 10 = 0
"""  # noqa: E501
SCANS = """
    INSERT INTO worker_scans (attachment_id, verdict, sha256) SELECT seq, IF(seq %% 1000, 'clean', 'infected'), SHA2(seq, 256)
    FROM seq_{first}_to_{last}
"""
PLAIN = {
    "GROUP BY delivery_status": "SELECT delivery_status, COUNT(*) FROM chat_notifications GROUP BY delivery_status",
    "GROUP BY verdict": "SELECT verdict, COUNT(*) FROM worker_scans GROUP BY verdict",
}


@click.command()
@click.option(
    "--rows", type=click.IntRange(min=1000), default=1_000_000, show_default=True, help="Notifications, and as many scans."
)
def main(rows: int) -> None:
    """Load, scrape, print and write down."""
    with Stack(f"bench-operations-{os.getpid()}", ("mariadb", "redis")) as stack:
        os.environ.update(stack.environment)
        get_settings.cache_clear()
        engine = get_engine()
        create_shared_schema(engine)
        migrate(engine)
        _load(engine, rows)
        milliseconds, counting = _scrapes() | _plain(engine), _counting(stack.redis.url)
        engine.dispose()
    lines = [f"measured: {place()}", f"{rows:,} notifications, {rows // 10:,} entries, {rows:,} scans; median of {SCRAPES}, ms"]
    lines += [f"  {name:32} {value:10.1f}" for name, value in milliseconds.items()]
    lines += ["counting"] + [f"  {name:32} {value:10.2f}" for name, value in counting.items()]
    print("\n".join(lines))
    (RESULTS / "operations.txt").write_text("\n".join(lines) + "\n")
    found = {"rows": rows, "milliseconds": milliseconds, "counting": counting}
    (RESULTS / "operations.json").write_text(json.dumps(found, indent=2) + "\n")


def _load(engine: Engine, rows: int) -> None:
    for statement in (NOTIFICATIONS, DELIVERIES, SCANS):
        for first in range(1, rows + 1, CHUNK):
            with engine.begin() as connection:
                connection.execute(text("SET SESSION foreign_key_checks = 0, unique_checks = 0"))
                last = min(first + CHUNK - 1, rows)
                connection.exec_driver_sql(statement.format(first=first, last=last))
    with engine.begin() as connection:
        for table in ("chat_notifications", "worker_deliveries", "worker_scans"):
            connection.execute(text(f"ANALYZE TABLE {table}")).all()


def _scrapes() -> dict[str, float]:
    from workers.operations import snapshot
    from workers.operations.exposition import exposition

    took: dict[str, list[float]] = {"a whole scrape": []}
    for _ in range(SCRAPES):
        snapshot._sources.cache_clear()
        began = time.perf_counter()
        found = snapshot.read_all()
        exposition(found)
        took["a whole scrape"].append(time.perf_counter() - began)
        for reading in found.readings:
            assert reading.ok, reading
            took.setdefault(f"  {reading.name}", []).append(reading.seconds)
    return {name: 1000 * statistics.median(times) for name, times in took.items()}


def _plain(engine: Engine) -> dict[str, float]:
    with engine.connect() as connection:
        return {
            f"instead: {name}": 1000 * _median(lambda query=query: connection.execute(text(query)).all(), 3)  # type: ignore[misc]
            for name, query in PLAIN.items()
        }


def _counting(url: str) -> dict[str, float]:
    """Return CPU time: it is the drain's own process that pays."""
    from redis import Redis

    outcome, messages, handed_on = Outcome(Kind.SENT), [], []
    with Redis.from_url(url) as client:
        counters.flush_to(lambda: client)
        for _ in range(SCRAPES):
            began = time.process_time()
            journal.count([("fcm", outcome, 0.03, 1.0)] * MESSAGES)
            messages.append(time.process_time() - began)
            began = time.process_time()
            counters.flush(at_once=True)
            handed_on.append(time.process_time() - began)
    return {
        "microseconds a message, CPU": 1e6 * statistics.median(messages) / MESSAGES,
        "microseconds a hand-over, CPU": 1e6 * statistics.median(handed_on),
    }


def _median(work: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    main()
