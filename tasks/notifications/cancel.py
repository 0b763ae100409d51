"""Cancel notifications that wait: which rows would go, and settling them a batch at a time.

A row that a worker holds is left to it, and so is one whose push is out though its result could not be written. A batch is one
transaction: who is killed in the middle has cancelled the batches before, and the next look begins with what is left.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, Engine, text

from db.identity import BELOW_ALL
from db.transactions import transact, write_rows
from tasks.notifications.devices import COLUMN, Device, of_lane, read_devices
from tasks.notifications.notification import IDENTITY
from tasks.notifications.queue import LOCK
from tasks.notifications.results import PARKED
from tasks.notifications.settlement import LONGEST_MESSAGE
from tasks.notifications.sweep import adopt_strays, enter_queue
from tasks.words import printable

CANCELLED = "cancelled:"
BATCH = 1000
SHOWN = 20

# By status, what may wait with it: PENDING rows by the index on delivery_status, in id order; those to be tried again by the
# primary key of their entries.
QUEUES = {
    "PENDING": text("""
        SELECT id FROM chat_notifications IGNORE INDEX (PRIMARY)
        WHERE delivery_status = 'PENDING' AND id > :after ORDER BY id LIMIT :rows
    """),
    "FAILED": text("""
        SELECT notification_id FROM worker_deliveries WHERE notification_id > :after ORDER BY notification_id LIMIT :rows
    """),
}
# All else by primary keys. The shared rows are locked before their entries are, so that no claim comes between: one that was
# first has its lease in by then, and one that comes later passes over what is locked.
CHOOSE = """
    SELECT id, {tokens} AS device_tokens FROM chat_notifications FORCE INDEX (PRIMARY)
    WHERE id IN :ids AND delivery_status = :status
"""
# As a claim reads it (queue.py).
MEANING = {"notification_type": "COALESCE(NULLIF(notification_type, ''), 'MESSAGE')"}
ENTRIES = text(f"""
    SELECT notification_id AS id, lease IS NOT NULL AND due_at > NOW(3) OR reason LIKE '{PARKED}%' AS held
    FROM worker_deliveries FORCE INDEX (PRIMARY) WHERE notification_id IN :ids FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - a constant of this project
HAVE_ENTRIES = text("SELECT notification_id FROM worker_deliveries WHERE notification_id IN :ids")
SETTLE = text("""
    UPDATE chat_notifications FORCE INDEX (PRIMARY)
    SET delivery_status = IF(is_sent, 'SENT', 'BOUNCED'), error_message = :why WHERE id IN :ids
""")
RECORD = text(f"""
    INSERT INTO worker_delivery_history (notification_id, identity, status, reason)
    SELECT n.id, {IDENTITY}, n.delivery_status, 'cancelled' FROM chat_notifications n FORCE INDEX (PRIMARY) WHERE n.id IN :ids
""")  # noqa: S608 - a constant of this project
# By its keys alone, MariaDB would read, and wait for, all of a small table.
FORGET = text("DELETE d FROM worker_deliveries d FORCE INDEX (PRIMARY) WHERE notification_id IN :ids AND due_at >= 0")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rows: those with these values of columns, all of whose devices are of these providers and apps, if any is named."""

    columns: Mapping[str, object]
    providers: Collection[str] = ()
    apps: Collection[str] = ()

    def among(self, connection: Connection, ids: list[int], status: str) -> list[int]:
        """Return those of the rows that are meant and have this status."""
        by_device = self.providers or self.apps
        statement = CHOOSE.format(tokens=COLUMN if by_device else "NULL")
        statement += "".join(f" AND {MEANING.get(column, column)} = :{column}" for column in self.columns)
        rows = connection.execute(text(statement), {"ids": ids, "status": status, **self.columns})
        return [row.id for row in rows if not by_device or self._has_all(read_devices(row.device_tokens).usable)]

    def _has_all(self, devices: tuple[Device, ...]) -> bool:
        lanes = [of_lane(device.lane) for device in devices]
        providers = {lane["provider"] for lane in lanes} <= set(self.providers) or not self.providers
        return bool(lanes) and providers and ({lane["app"] for lane in lanes} <= set(self.apps) or not self.apps)


@dataclass(slots=True)
class Cancelled:
    """How many were, or would be, cancelled, and the first few ids; `held` ones are a worker's or the API's, or refused."""

    rows: int = 0
    held: int = 0
    ids: list[int] = field(default_factory=list)


def cancel(engine: Engine, chosen: Chosen, why: str | None, stop: Callable[[], bool] = lambda: False) -> Cancelled:
    """Settle the chosen rows as BOUNCED (SENT, if a device has it) and `cancelled: why`; where that is None, only count them.

    `stop` is asked before each batch. Rows without a status, and FAILED ones that no worker knows of, are entered first: else a
    sweep would bring them in later.
    """
    if why is not None:
        while not stop() and enter_queue(engine):
            pass
        adopt_strays(engine)
    done = Cancelled()
    for status in QUEUES:
        after: int | None = BELOW_ALL
        while after is not None and not stop():
            ids, held, after = transact(engine, partial(_batch, status=status, chosen=chosen, after=after, why=why))
            done.rows += len(ids)
            done.held += held
            done.ids += ids[: SHOWN - len(done.ids)]
    return done


def _batch(
    connection: Connection, *, status: str, chosen: Chosen, after: int, why: str | None
) -> tuple[list[int], int, int | None]:
    """Return the ids that were, or would be, cancelled, how many are held, and behind which id the next batch begins."""
    page = connection.execute(QUEUES[status], {"after": after, "rows": BATCH}).scalars().all()
    meant = chosen.among(connection, [*page], status) if page else []
    free = [*connection.execute(LOCK, {"ids": meant, "status": status}).scalars()] if meant else []
    if free:
        ours = {entry.id for entry in connection.execute(ENTRIES, {"ids": free}) if not entry.held}
        held = {*connection.execute(HAVE_ENTRIES, {"ids": free}).scalars()} - ours
        free = [each for each in free if each not in held]
    if why is not None and (
        free := write_rows(connection, SETTLE, free, why=f"{CANCELLED} {printable(why)}"[:LONGEST_MESSAGE])
    ):
        connection.execute(RECORD, {"ids": free})
        connection.execute(FORGET, {"ids": free})
    return free, len(meant) - len(free), page[-1] if len(page) == BATCH else None
