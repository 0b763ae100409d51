"""Write each row's result to chat_notifications; while that is impossible, park it in worker_deliveries.

A push that is out must not go out again because its row could not be written. A result that the database does not take (the API
holds the row locked, someone alters the table, a value does not fit) is parked: the row's ledger goes into `worker_deliveries`,
alone, its lease ends, and the next claim settles it from there without sending.
Why every write names its index: queue.py.
"""

import time
from collections import Counter
from functools import partial

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from db.rows import json_arrays
from db.transactions import error_code, is_of_rows, transact
from tasks.notifications import journal
from tasks.notifications.journal import Attempt
from tasks.notifications.notification import ENTRIES

log = structlog.get_logger(__name__)

# How long the shared table is tried; a statement that has begun may add the wait for a table's lock (METADATA_WAIT_SECONDS).
SETTLE_PATIENCE_SECONDS = 10
# Rows are locked for a moment by another process's look for rows to claim; what the API holds for longer is parked.
LOCKED_PAUSES = (0.01, 0.02, 0.05, 0.1)
# How long parking is tried: a server that restarts takes its time, and until someone else claims the rows nothing is lost.
PARK_PATIENCE_SECONDS = 45
# When a parked result is tried again: soon if only its row was locked, later if the server refused it.
LOCKED_SECONDS = 1
REFUSED_SECONDS = 30
# How its reason begins: such a row is PENDING because its result could not be written, not because someone set it so.
PARKED = "parked: "

# Settling, by primary keys: first whether all rows are still ours and free, which locks them and is nearly always so; else
# which are. A row that someone else holds just now (the API in a long transaction) must not hold the others up. One that is
# gone, or whose id is another row's by now, passes for such a one: what is parked for it is forgotten at the next claim.
THESE = f"FROM {ENTRIES} WHERE d.notification_id IN :ids AND d.lease = :lease FOR UPDATE SKIP LOCKED"
ALL_OURS_AND_FREE = text(f"SELECT COUNT(*) {THESE}")
OURS_AND_FREE = text(f"SELECT n.id {THESE}")
# The many that every device took at once need no more than their ids.
WRITE_SENT = text("""
    UPDATE chat_notifications FORCE INDEX (PRIMARY)
    SET delivery_status = 'SENT', error_message = NULL, sent_at = COALESCE(sent_at, NOW()), is_sent = 1
    WHERE id IN :ids
""")
# A row that someone settled by hand meanwhile stays so, unless a device has got it.
WRITE_ROWS = text("""
    UPDATE JSON_TABLE(:settled, '$[*]' COLUMNS (
      id BIGINT PATH '$.notification_id', status VARCHAR(8) PATH '$.status', is_sent TINYINT PATH '$.is_sent',
      error_message TEXT PATH '$.error_message')) AS s
    STRAIGHT_JOIN chat_notifications n FORCE INDEX (PRIMARY) ON n.id = s.id
    SET n.delivery_status = s.status, n.error_message = s.error_message,
        n.sent_at = IF(s.is_sent, COALESCE(n.sent_at, NOW()), n.sent_at), n.is_sent = s.is_sent
    WHERE s.status = 'SENT' OR n.delivery_status IN ('PENDING', 'FAILED')
""")
# Rows that wait: for their next attempt or, parked, for their result. Without a ledger (nothing was sent) the last one stays.
KEEP = text("""
    UPDATE JSON_TABLE(:kept, '$[*]' COLUMNS (
      id BIGINT PATH '$.notification_id', due DECIMAL(16, 3) PATH '$.due', ledger JSON PATH '$.ledger',
      waiting_on VARCHAR(48) PATH '$.waiting_on', reason VARCHAR(64) PATH '$.reason')) AS s
    STRAIGHT_JOIN worker_deliveries d FORCE INDEX (PRIMARY) ON d.notification_id = s.id
    SET d.lease = NULL, d.claims = 0, d.due_at = COALESCE(FROM_UNIXTIME(s.due), NOW(3) + INTERVAL :seconds SECOND),
        d.waiting_on = COALESCE(s.waiting_on, ''), d.devices = COALESCE(s.ledger, d.devices), d.reason = s.reason
    WHERE d.lease = :lease
""")
FORGET = text("""
    DELETE d FROM worker_deliveries d FORCE INDEX (PRIMARY) WHERE notification_id IN :ids AND lease = :lease
""")


def settle(engine: Engine, lease: str, attempts: list[Attempt], pauses: tuple[float, ...] = LOCKED_PAUSES) -> Counter[str]:
    """Write the results of many rows in one transaction; return how many were written, by status. Safe to run twice.

    Results that the shared table does not take are parked, so are those of rows that someone else holds locked after `pauses`
    seconds. A row whose lease has meanwhile passed to another run is left to that run. Raise DBAPIError if not even parking is
    possible.
    """
    try:
        write = partial(_write_free, lease=lease, attempts=attempts)
        written, others = transact(engine, write, patience=SETTLE_PATIENCE_SECONDS)
    except DBAPIError as error:
        if is_of_rows(error) and len(attempts) > 1:
            half = len(attempts) // 2
            return settle(engine, lease, attempts[:half]) + settle(engine, lease, attempts[half:])
        log.error("results parked: the database does not take them", notifications=len(attempts), code=error_code(error))
        why = f"{PARKED}database error {error_code(error)} at writing the result"
        written, others, pauses, seconds = Counter(), attempts, (), REFUSED_SECONDS
    else:
        why, seconds = f"{PARKED}the row is locked", LOCKED_SECONDS
    if others and pauses:
        time.sleep(pauses[0])
        written += settle(engine, lease, others, pauses[1:])
    elif others:
        park = partial(_park, lease=lease, attempts=others, why=why, seconds=seconds)
        transact(engine, park, patience=PARK_PATIENCE_SECONDS)
        journal.apart(engine, partial(journal.record_counts, attempts=others))
    return written


def _write_free(connection: Connection, lease: str, attempts: list[Attempt]) -> tuple[Counter[str], list[Attempt]]:
    """Write the results of the rows that are ours and free; return how many, by status, and those of the others."""
    ids = {"ids": [_id(attempt) for attempt in attempts], "lease": lease}
    written, others = attempts, list[Attempt]()
    if connection.execute(ALL_OURS_AND_FREE, ids).scalar_one() < len(attempts):
        free = {*connection.execute(OURS_AND_FREE, ids).scalars()}
        written = [attempt for attempt in attempts if _id(attempt) in free]
        others = [attempt for attempt in attempts if _id(attempt) not in free]
    _write(connection, lease, written)
    return Counter(attempt.settlement.status for attempt in written), others


def _write(connection: Connection, lease: str, attempts: list[Attempt]) -> None:
    if not attempts:
        return
    settlements = [attempt.settlement for attempt in attempts]
    sent = [settlement.notification_id for settlement in settlements if settlement.plainly_sent]
    others = [settlement for settlement in settlements if not settlement.plainly_sent]
    if sent:
        connection.execute(WRITE_SENT, {"ids": sent})
    for array in json_arrays(others):
        connection.execute(WRITE_ROWS, {"settled": array})
    for array in json_arrays(settlement for settlement in settlements if settlement.due is not None):
        connection.execute(KEEP, {"kept": array, "lease": lease, "seconds": 0})
    done = [settlement.notification_id for settlement in settlements if settlement.due is None]
    if done:
        connection.execute(FORGET, {"ids": done, "lease": lease})
    journal.record(connection, attempts)


def _park(connection: Connection, lease: str, attempts: list[Attempt], why: str, seconds: int) -> None:
    """Keep the ledgers in the worker-owned table."""
    # A ledger that is empty is left out: a JSON null is no SQL NULL, and COALESCE would take it for one.
    ledgers = ((_id(attempt), attempt.ledger.stored()) for attempt in attempts)
    parked = ({"notification_id": id_, "reason": why} | ({"ledger": kept} if kept else {}) for id_, kept in ledgers)
    for array in json_arrays(parked):
        connection.execute(KEEP, {"kept": array, "lease": lease, "seconds": seconds})


def _id(attempt: Attempt) -> int:
    return attempt.settlement.notification_id
