"""Claim and load rows of `chat_notifications`, and give back those that were not tried.

Every write names the primary key as its index: on a small table the optimizer would rather scan, and wait for rows that are
none of its business. A claim is a lease in `worker_deliveries`; the shared row stays untouched until its result is written
(results.py). `due_at` is when a worker may claim a row that has an entry there: the end of its lease, or its next attempt.
Times are the database's.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache, partial

import orjson
from sqlalchemy import Connection, Engine, TextClause, text

from db.check import INDEX_BY_TYPE
from db.identity import BELOW_ALL
from db.transactions import transact, write_rows
from tasks import counters
from tasks.notifications import journal, preferences, results
from tasks.notifications.devices import COLUMN
from tasks.notifications.journal import Attempt
from tasks.notifications.notification import ENTRIES, IDENTITY, Notification

# From claim to settled result. What is not sent within START_SECONDS of its claim is given back unsent, which leaves a
# request its deadline and the settling its retries.
LEASE_SECONDS = 60
START_SECONDS = 20

# Fresh rows: those without an entry, or with one that waits though the API has set them back to PENDING. The index on
# delivery_status ends in the primary key, so this reads in id order from `after` and stops at the limit; the primary key itself
# is barred, for it would walk all the SENT rows. SKIP LOCKED passes over what another worker or the API holds; the locks live
# until the leases are in, milliseconds. Why the entries are looked up in a subquery, not in a join: docs/decisions.md.
SET_BY_HAND = f"d.lease IS NULL AND d.reason NOT LIKE '{results.PARKED}%'"
FRESH = f"""
    SELECT n.id FROM chat_notifications n IGNORE INDEX (PRIMARY)
    WHERE n.delivery_status = 'PENDING' AND n.id > :after
      AND (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = n.id AND NOT ({SET_BY_HAND}) LIMIT 1) IS NULL
    ORDER BY n.id LIMIT :rows
"""  # noqa: S608 - a constant of this module
CLAIM_FRESH = text(f"{FRESH} FOR UPDATE SKIP LOCKED")
# The chat's rows (all but SYSTEM) behind a backlog: among the newest of the same index, whose types are read by primary key
# without locks, or the oldest by an index on (delivery_status, notification_type) where `db check` found one. Locked then.
NEWEST = 2000
CHAT = f"""
    SELECT n.id FROM ({{found}}) found STRAIGHT_JOIN chat_notifications n FORCE INDEX (PRIMARY) ON n.id = found.id
    WHERE n.delivery_status = 'PENDING' AND COALESCE(n.notification_type, '') <> 'SYSTEM'
      AND (SELECT 1 FROM worker_deliveries d WHERE d.notification_id = n.id AND NOT ({SET_BY_HAND}) LIMIT 1) IS NULL
    ORDER BY n.id LIMIT :rows
"""  # noqa: S608 - a constant of this module
AMONG_NEWEST = f"""
    SELECT id FROM chat_notifications IGNORE INDEX (PRIMARY) WHERE delivery_status = 'PENDING' ORDER BY id DESC LIMIT {NEWEST}
"""  # noqa: S608 - a number of ours
BY_TYPE = " UNION ALL ".join(
    "(SELECT id FROM chat_notifications IGNORE INDEX (PRIMARY)"  # noqa: S608 - words and numbers of ours
    f" WHERE delivery_status = 'PENDING' AND notification_type = '{kind}' ORDER BY id LIMIT {NEWEST})"
    for kind in ("MENTION", "MESSAGE")
)
LOCK = text("""
    SELECT id FROM chat_notifications FORCE INDEX (PRIMARY)
    WHERE id IN :ids AND delivery_status = :status FOR UPDATE SKIP LOCKED
""")
LEASE_FRESH = text(f"""
    INSERT IGNORE INTO worker_deliveries (notification_id, lease, due_at, claims, identity)
    SELECT n.id, :lease, NOW(3) + INTERVAL :seconds SECOND, 1, {IDENTITY}
    FROM chat_notifications n FORCE INDEX (PRIMARY) WHERE n.id IN :ids
""")  # noqa: S608 - a constant of this project
LEASED = text("""
    SELECT notification_id AS id FROM worker_deliveries WHERE notification_id IN :ids AND lease = :lease ORDER BY 1
""")

# Due rows, by idx_due (waiting_on, due_at): next attempts, and leases of workers that died. The shared rows are not locked.
CLAIM_DUE = text("""
    SELECT notification_id AS id, claims FROM worker_deliveries
    WHERE waiting_on = :waiting_on AND due_at <= NOW(3)
    ORDER BY due_at LIMIT :rows FOR UPDATE SKIP LOCKED
""")
LEASE_DUE = text(f"""
    UPDATE worker_deliveries d FORCE INDEX (PRIMARY)
    SET d.lease = :lease, d.due_at = NOW(3) + INTERVAL :seconds SECOND, d.claims = d.claims + 1
    WHERE d.notification_id IN :ids AND (d.due_at <= NOW(3) OR {SET_BY_HAND})
""")  # noqa: S608 - a constant of this module

# Without a creation time, or with one of zeros or in the future, a row's age counts from when it was first seen.
CREATED_AT = "IF(n.created_at BETWEEN '1970-01-02' AND NOW(), n.created_at, COALESCE(d.created_at, NOW(3)))"
LONGEST_LEDGER = 5_000_000
# A Notification as one JSON array, its fields in their order: a row of one cell costs a third of one of twenty. By primary and
# unique keys, without locks. LEFT makes texts of the documents, alike on all servers, and no longer than any that is of use.
# Not loaded are rows that were deleted, or settled by someone else, or that are others than those of the entries.
NOTIFICATION = f"""
    n.conversation_id, n.message_id, n.recipient_id, COALESCE(n.sender_id, 0),
    COALESCE(NULLIF(n.notification_type, ''), 'MESSAGE'), n.title, LEFT(n.body, 4096),
    {COLUMN}, COALESCE(n.is_sent, 0),
    UNIX_TIMESTAMP({CREATED_AT}) + 0e0, c.conversation_id, m.message_id, {preferences.COLUMNS}, {preferences.BADGE}
"""
LOAD = text(f"""
    SELECT JSON_ARRAY(n.id, {NOTIFICATION}, d.claims, LEFT(CONVERT(d.devices USING utf8mb4), {LONGEST_LEDGER}),
      n.delivery_status = 'PENDING' AND d.reason NOT LIKE '{results.PARKED}%')
    FROM {ENTRIES} {preferences.JOINS}
    WHERE d.notification_id IN :ids AND d.lease = :lease AND n.delivery_status IN ('PENDING', 'FAILED')
    ORDER BY d.notification_id
""")  # noqa: S608 - constants of this project
PEEK = text(f"""
    SELECT JSON_ARRAY(n.id, {NOTIFICATION})
    FROM chat_notifications n LEFT JOIN worker_deliveries d ON d.notification_id = n.id {preferences.JOINS} WHERE n.id = :id
""")  # noqa: S608 - constants of this project

# Who settles a row by hand leaves our sentence in it, and with it a promise that is not kept.
TIDY = text("""
    UPDATE chat_notifications n FORCE INDEX (PRIMARY) SET n.error_message = SUBSTRING_INDEX(n.error_message, '; next try ', 1)
    WHERE n.id IN :ids AND n.delivery_status IN ('SENT', 'BOUNCED') AND n.error_message LIKE '%; next try %'
""")
RELEASE = text("""
    UPDATE worker_deliveries FORCE INDEX (PRIMARY) SET lease = NULL, due_at = NOW(3), claims = claims - 1
    WHERE notification_id IN :ids AND lease = :lease
""")


def has_unclaimed(engine: Engine) -> bool:
    """Return True if there are PENDING rows that no one has claimed."""
    with engine.connect() as connection:
        return connection.execute(text(FRESH), {"after": BELOW_ALL, "rows": 1}).first() is not None


class Queue:
    """The notification queue as one drain run sees it: all its claims bear the run's lease."""

    def __init__(self, engine: Engine, lease: str) -> None:
        """`lease` is 32 hex digits that no other run uses."""
        self._engine = engine
        self._lease = lease
        self._after = BELOW_ALL
        self.saw_end = False  # of the fresh rows that nobody had locked

    def claim_fresh(self, rows: int) -> list[Notification]:
        """Lease up to `rows` PENDING rows that no one has claimed, oldest first; an empty list means there are none.

        A run walks forward: what it claimed before is behind `after`. Rows whose ids are lower, but whose inserts were
        committed later, are for the next run: their own nudge's, or beat's.
        """
        ids = transact(self._engine, partial(self._lease_fresh, rows=rows, after=self._after))
        self._after = ids[-1] if ids else BELOW_ALL
        return self._load(ids)

    def claim_chat(self, rows: int) -> list[Notification]:
        """Lease up to `rows` PENDING rows that people wait for, though older rows of other kinds are there."""

        def lease(connection: Connection) -> list[int]:
            ids = connection.execute(_chat(self._engine), {"rows": rows}).scalars().all()
            ids = connection.execute(LOCK, {"ids": ids, "status": "PENDING"}).scalars().all() if ids else ids
            return self._lease_these(connection, sorted(ids)) if ids else []

        return self._load(transact(self._engine, lease))

    def _lease_fresh(self, connection: Connection, rows: int, after: int) -> list[int]:
        """Lease the next rows behind `after`, passing over those that another worker got first."""
        while ids := [*connection.execute(CLAIM_FRESH, {"after": after, "rows": rows}).scalars()]:
            self.saw_end = len(ids) < rows
            if ours := self._lease_these(connection, ids):
                return ours
            after = ids[-1]
        return []

    def _lease_these(self, connection: Connection, ids: list[int]) -> list[int]:
        """Lease rows that are locked; return those that no other run has."""
        values = {"ids": ids, "lease": self._lease, "seconds": LEASE_SECONDS}
        if connection.execute(LEASE_FRESH, values).rowcount == len(ids):
            return ids
        connection.execute(LEASE_DUE, values)
        return [*connection.execute(LEASED, values).scalars()]

    def claim_due(self, rows: int, lanes: tuple[str, ...] = ("",)) -> list[Notification]:
        """Lease up to `rows` rows that are due for another attempt or whose worker died, lane by lane, oldest first.

        A lane is a provider that rows wait for, or '' for those that wait for none.
        """

        def lease(connection: Connection) -> list[int]:
            ids: list[int] = []
            for lane in lanes:
                if len(ids) < rows:
                    ids += self._lease_due(connection, lane, rows - len(ids))
            return ids

        return self._load(sorted(transact(self._engine, lease))) if lanes else []

    def _lease_due(self, connection: Connection, lane: str, rows: int) -> list[int]:
        due = connection.execute(CLAIM_DUE, {"rows": rows, "waiting_on": lane}).all()
        if due and due[0].claims:
            # Rows that a worker died with come back in ever smaller batches, so that one that kills its worker is soon
            # alone with its own fate.
            due = [row for row in due if row.claims == due[0].claims][: max(1, rows >> 3 * due[0].claims)]
        ids = [row.id for row in due if bool(row.claims) == bool(due[0].claims)]
        if ids:
            connection.execute(LEASE_DUE, {"ids": ids, "lease": self._lease, "seconds": LEASE_SECONDS})
        return ids

    def peek(self, notification_id: int) -> Notification | None:
        """Return a row without claiming it, None where there is none."""
        with self._engine.connect() as connection:
            cell = connection.execute(PEEK, {"id": notification_id}).scalar()
            return Notification(*orjson.loads(cell)) if cell else None

    def _load(self, ids: list[int]) -> list[Notification]:
        if not ids:
            return []
        leased = {"ids": ids, "lease": self._lease}
        cells = transact(self._engine, lambda connection: connection.execute(LOAD, leased).scalars().all())
        # One of each: a schema without the unique keys of what is joined may have doubled rows.
        notifications = [*{(row := Notification(*orjson.loads(cell))).id: row for cell in cells}.values()]
        if gone := {*ids} - {notification.id for notification in notifications}:
            forgotten = {"ids": sorted(gone), "lease": self._lease}
            transact(self._engine, lambda connection: _forget(connection, forgotten))
        return notifications

    def settle(self, attempts: list[Attempt]) -> Counter[str]:
        """Write the results of rows that this run holds the lease of (tasks.notifications.results), and tell Redis."""
        journal.record_dead(self._engine, attempts)
        written = results.settle(self._engine, self._lease, attempts)
        journal.announce(attempts)
        counters.flush()
        return written

    def release(self, ids: list[int]) -> None:
        """Give back rows that were claimed but not tried, at once for others to claim."""
        parameters = {"ids": ids, "lease": self._lease}
        transact(self._engine, lambda connection: connection.execute(RELEASE, parameters))


@cache
def _chat(engine: Engine) -> TextClause:
    """Return the statement that finds the chat's rows by the best index that was there when it was first asked for."""
    with engine.connect() as connection:
        has_index = connection.execute(INDEX_BY_TYPE).scalar() is not None
    return text(CHAT.format(found=BY_TYPE if has_index else AMONG_NEWEST))


def _forget(connection: Connection, entries: Mapping[str, object]) -> None:
    if free := [*connection.execute(results.OURS_AND_FREE, entries).scalars()]:
        write_rows(connection, TIDY, free)
    connection.execute(results.FORGET, entries)
