"""The withdrawal: a push that shows nothing, and takes away what devices show of rows that were read elsewhere or deleted."""

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine, text

from db.rows import dicts
from tasks import broker
from tasks.notifications import journal, preferences
from tasks.notifications.delivery import Delivery
from tasks.notifications.devices import COLUMN, MOST_DEVICES, Devices, of_lane, read_together
from tasks.notifications.ledger import Ledger
from tasks.notifications.notification import LIFETIME_SECONDS, Notification
from tasks.notifications.outcome import Kind
from tasks.notifications.payload import build_push
from tasks.notifications.providers import Provider

# Of the recipient's newest rows, by the index on recipient_id; of their ids, newest first, what fits into every provider's 4096
# bytes: all of 10 digits, some 160 of 19.
MOST_ROWS = 300
LONGEST_IDS = 3300
GONE = text(f"""
    SELECT n.id, CONCAT(n.id, ' ', n.sent_at) AS identity, {COLUMN} AS device_tokens
    FROM (SELECT id, conversation_id, message_id, recipient_id, sender_id, device_tokens, is_read, is_sent, sent_at
          FROM chat_notifications IGNORE INDEX (PRIMARY)
          WHERE recipient_id = :recipient_id ORDER BY id DESC LIMIT {MOST_ROWS}) AS n {preferences.JOINS}
    WHERE n.is_sent AND n.sent_at > NOW() - INTERVAL 24 HOUR AND (m.id IS NULL OR m.is_deleted OR {preferences.READ})
    ORDER BY n.id DESC
""")  # noqa: S608 - constants of this project
BADGE = text(f"SELECT {preferences.BADGE} FROM (SELECT :recipient_id AS recipient_id) AS n")  # noqa: S608 - as above

# By recipient: what was withdrawn, and for a moment that something was.
WITHDRAWN, HELD = "chat-workers:withdrawn:", "chat-workers:withdrawing:"
# Of the hash that is kept in place of an identity: Redis holds 300 of them for each recipient.
MARK_BYTES = 6
HELD_SECONDS = 1.5


@dataclass(slots=True, kw_only=True)
class Withdrawal(Delivery):
    """The delivery of one push to all devices of a recipient."""

    marks: bytes
    """Of all rows that it tells of, and of those that were told of before and would be found again."""

    def keep(self) -> int:
        """Remember what was withdrawn for as long as it would be looked for; return how many devices have taken it."""
        taken = sum(outcome is not None and outcome.kind is Kind.SENT for outcome in self.outcomes.values())
        if taken:
            _redis().set(f"{WITHDRAWN}{self.notification.recipient_id}", self.marks, ex=LIFETIME_SECONDS)
        return taken


def asking(providers: Mapping[str, Provider]) -> set[str]:
    """Return the lanes whose app asks for withdrawals."""
    return {lane for lane, provider in providers.items() if of_lane(lane)["provider"] in provider.app.withdraw}


def find(engine: Engine, recipient_id: int, providers: Mapping[str, Provider]) -> Withdrawal | None:
    """Return what takes away what the recipient's devices show in vain, None if nothing that was not withdrawn before.

    In whichever conversation: several that are read at once cost a device one push. Only apps that ask for it get one.
    """
    with engine.connect() as connection:
        rows = dicts(connection, GONE, recipient_id=recipient_id)
    marks = {row["id"]: hashlib.sha256(row["identity"].encode()).digest()[:MARK_BYTES] for row in rows}
    kept = _redis().get(f"{WITHDRAWN}{recipient_id}") or b""
    known = {kept[at : at + MARK_BYTES] for at in range(0, len(kept), MARK_BYTES)}
    new = [row for row in rows if marks[row["id"]] not in known]
    lanes = asking(providers)
    read = read_together([row["device_tokens"] for row in new])
    devices = {d.key: d for each in read if each for d in each.usable if d.lane in lanes}
    with engine.connect() as connection:
        for key in journal.known_dead(connection, [*devices]):
            del devices[key]
        if not devices:
            return None
        badge = int(connection.execute(BADGE, {"recipient_id": recipient_id}).scalar_one())
    told = listed(row["id"] for row in new)
    for row in new[told.count(" ") + 1 :]:
        del marks[row["id"]]
    nothing = Notification(0, 0, 0, recipient_id, 0, "SYSTEM", "", "", None, True, time.time(), badge=badge)
    push = build_push(nothing, nothing.created_at)._replace(
        data={"type": "WITHDRAWAL", "withdrawn": told},
        collapse_key=f"withdrawal-{new[0]['id']}",
    )
    usable = tuple(devices.values())[:MOST_DEVICES]
    prepared = {lane: providers[lane].prepare_withdrawal(push) for lane in {device.lane for device in usable}}
    return Withdrawal(nothing, Devices(usable), Ledger(), [*usable], prepared=prepared, marks=b"".join(marks.values()))


def listed(ids: Iterable[int]) -> str:
    """Return the first ids, as many as LONGEST_IDS characters take."""
    return "".join(f"{id_} " for id_ in ids)[: LONGEST_IDS + 1].rpartition(" ")[0]


def hold(recipient_id: int) -> bool:
    """Hold other withdrawals to the recipient back for HELD_SECONDS; return False if they are held back already."""
    return bool(_redis().set(f"{HELD}{recipient_id}", "", nx=True, px=round(HELD_SECONDS * 1000)))


def is_held(recipient_id: int) -> bool:
    """Return True if withdrawals to the recipient are held back."""
    return bool(_redis().exists(f"{HELD}{recipient_id}"))


def _redis() -> Redis:
    return broker.shared(seconds=journal.ANSWER_SECONDS)
