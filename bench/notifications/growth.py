"""What a bigger table costs: claim, retry scan, sweep and status at ten thousand rows and at millions, with the plans."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sqlalchemy import TextClause, text

from bench.notifications.field import Field
from db.identity import ABOVE_ALL, BELOW_ALL
from tasks.facts import read_tables
from tasks.notifications import facts, sweep
from tasks.notifications import queue as statements
from tasks.notifications.queue import Queue

# Old rows first. One in five is an old failure, as many as a million among five; the rest are SENT.
OLD = """
    INSERT INTO chat_notifications
      (conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens, is_sent, is_read, delivery_status,
       error_message, sent_at, created_at)
    SELECT r.conversation_id, r.message_id, r.recipient_id, r.sender_id, r.title, r.body, r.device_tokens, s.seq % 5 > 0, 1,
           IF(s.seq % 5 > 0, 'SENT', 'FAILED'), IF(s.seq % 5 > 0, NULL, 'gave up: out of attempts'),
           NOW() - INTERVAL 40 DAY, NOW() - INTERVAL 40 DAY
    FROM seq_{first}_to_{last} s JOIN bench_rows r ON r.id = 1 + s.seq % {distinct}
"""
FRESH = """
    INSERT INTO chat_notifications
      (conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens, delivery_status, error_message)
    SELECT conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens, :status, :why
    FROM bench_rows WHERE id <= :rows
"""
ENTER = """
    INSERT INTO worker_deliveries (notification_id, due_at)
    SELECT id, NOW(3) FROM chat_notifications WHERE delivery_status = 'FAILED' AND created_at > NOW() - INTERVAL 1 DAY
"""
CHUNK = 250_000
BATCH = 500
WAITING = 5000
LOOKS = 15


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds: per row for what works on rows, per call for what looks. Beside them what no other load can blur."""

    what: str
    small: float
    big: float
    small_reads: float
    """Index entries and rows that the server read for it."""
    big_reads: float

    @property
    def ratio(self) -> float:
        return self.big / self.small


def measure(field: Field, small: int, big: int) -> tuple[list[Cost], str]:
    """Return the costs at both sizes, and the plans of the statements at the big one."""
    at_small, at_big = _measure(field, small), _measure(field, big)
    costs = []
    for what, (small_ms, small_reads) in at_small.items():
        big_ms, big_reads = at_big[what]
        costs.append(Cost(what, small_ms, big_ms, small_reads, big_reads))
    return costs, _plans(field)


def _measure(field: Field, rows: int) -> dict[str, tuple[float, float]]:
    """Return for each of them the milliseconds and the reads: of a row, or of a call."""
    _load(field, rows)
    queue = Queue(field.engine, uuid.uuid4().hex)
    batches = WAITING // BATCH
    return {
        "claim, ms a row": _best(field, lambda: queue.claim_fresh(BATCH), batches, BATCH),
        "retry claim, ms a row": _best(field, lambda: queue.claim_due(BATCH), batches, BATCH),
        "retry scan that finds nothing, ms": _best(field, lambda: queue.claim_due(BATCH)),
        "drain's look past 5,000 in flight, ms": _best(field, lambda: Queue(field.engine, uuid.uuid4().hex).claim_fresh(BATCH)),
        "sweep of FAILED rows, ms": _best(field, lambda: sweep.adopt_strays(field.engine)),
        "status, ms": _best(field, lambda: _status(field)),
    }


def _status(field: Field) -> None:
    with field.engine.connect() as connection:
        read_tables(facts.TABLES, connection, on_demand=True)


def _load(field: Field, rows: int) -> None:
    field.reset(0)
    with field.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET SESSION foreign_key_checks = 0, unique_checks = 0"))
        for first in range(1, rows + 1, CHUNK):
            last = min(first + CHUNK - 1, rows)
            connection.execute(text(OLD.format(first=first, last=last, distinct=field.rows)))
        connection.execute(text(FRESH), {"status": "FAILED", "why": "1 of 1 to try again", "rows": WAITING})
        connection.execute(text(ENTER))
        connection.execute(text(FRESH), {"status": "PENDING", "why": None, "rows": WAITING})
        connection.execute(text("ANALYZE TABLE chat_notifications, worker_deliveries"))


def _best(field: Field, work: Callable[[], object], times: int = LOOKS, rows: int = 1) -> tuple[float, float]:
    """Return the milliseconds a row when other work on the machine disturbed least, and the reads a row."""
    reads, taken = _reads(field), []
    for _ in range(times):
        began = time.perf_counter()
        done = work()
        taken.append(time.perf_counter() - began)
        assert rows == 1 or len(cast(list[object], done)) == rows
    return min(taken) * 1000 / rows, (_reads(field) - reads) / times / rows


def _reads(field: Field) -> int:
    with field.engine.connect() as connection:
        found = connection.execute(text("SHOW GLOBAL STATUS LIKE 'Handler_read%'")).all()
    return sum(int(row[1]) for row in found)


def _plans(field: Field) -> str:
    ids = list(range(1, BATCH + 1))
    asked: dict[str, tuple[TextClause, dict[str, object]]] = {
        "claim of fresh rows": (statements.CLAIM_FRESH, {"after": BELOW_ALL, "rows": BATCH}),
        "claim of due rows": (statements.CLAIM_DUE, {"waiting_on": "", "rows": BATCH}),
        "load": (statements.LOAD, {"ids": ids, "lease": "-"}),
        "sweep of FAILED rows": (sweep.STRAYS, {"before": ABOVE_ALL, "rows": 1000}),
        "status: the backlog": (facts.BACKLOG, {}),
        "status: why rows wait": (facts.REASONS, {}),
    }
    lines = []
    with field.engine.connect() as connection:
        for name, (statement, values) in asked.items():
            lines.append(f"{name}\n  {'table':20}{'type':10}{'key':24}{'rows':>10}  extra")
            explained = text(f"EXPLAIN {statement.text}").bindparams(*statement._bindparams.values())
            for row in connection.execute(explained, values).mappings():
                shown = (row["table"], row["type"], row["key"], row["rows"])
                table, kind, key, rows = ("-" if value is None else str(value) for value in shown)
                lines.append(f"  {table:20}{kind:10}{key:24}{rows:>10}  {row['Extra'] or ''}")
    return "\n".join(lines)
