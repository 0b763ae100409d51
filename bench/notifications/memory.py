"""The memory of one worker process while it drains the whole table."""

import time

from sqlalchemy import text

from bench.notifications.contestants import ours
from bench.notifications.field import Field, rss_mb, session

# Messages and devices of the loaded rows, over and over.
FILL = """
    INSERT INTO chat_notifications (conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens)
    SELECT conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens FROM bench_rows WHERE id <= :rows
"""
SAMPLE_SECONDS = 1.0
MOST_SECONDS = 900


def measure(field: Field, rows: int) -> list[tuple[int, float]]:
    """Drain `rows` rows in one process; return (messages sent, MiB resident) each second."""
    field.reset(0)
    with field.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET SESSION foreign_key_checks = 0"))
        for done in range(0, rows, field.rows):
            connection.execute(text(FILL), {"rows": min(field.rows, rows - done)})
    field.nudge()
    samples: list[tuple[int, float]] = []
    deadline = time.monotonic() + MOST_SECONDS
    with field.running(ours(1)) as ([leader], _):
        while (sent := field.emulator.stats().count("accepted")) < rows and time.monotonic() < deadline:
            children = [member for member in session(leader) if member != leader]
            if sent and children:
                samples.append((sent, max(rss_mb(child) for child in children)))
            time.sleep(SAMPLE_SECONDS)
    return samples
