"""What is kept after a row is settled: dead devices (for the API), the history of rows with problems, and counts.

`record_dead` writes before the rows are settled, `record` in that transaction; `announce` and `count` tell Redis afterwards.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import DBAPIError

from db.rows import json_arrays
from db.transactions import error_code, transact
from tasks import broker, counters, outbox
from tasks.notifications.devices import Device, of_lane
from tasks.notifications.facts import DELIVERED_SECONDS, DELIVERIES, SEND_SECONDS
from tasks.notifications.ledger import Ledger, State
from tasks.notifications.notification import IDENTITY
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers import PROVIDERS
from tasks.notifications.settlement import LONGEST_REASON, Settlement

log = structlog.get_logger(__name__)

# As events are (tasks/outbox.py), which take its place; kept for one release.
DEAD_DEVICES = "chat-workers:dead-devices"
MOST_EVENTS = 10_000
ANSWER_SECONDS = 2.0
APART_SECONDS = 5  # as one wait for a row's lock, which is not tried again; a server that comes back is

LONGEST_LABEL = 48
# Where a provider's words begin to vary: at a bracket, a colon or a quote stand field names, ports, key ids.
VARIES = re.compile(r"""\s*[(:'"\[].*""", re.DOTALL)
ANSWERED = re.compile(r"(\w+ [1-5][0-9]{2})\b(.*)", re.DOTALL)
# As providers' words are; and so many labels, for whoever answers in their place must not make a metric series of each word.
WORD = re.compile("[A-Z][A-Za-z_]+")
MOST_LABELS = 200

Answered = tuple[str, Outcome, float, float]
"""The lane and the outcome of a message, the seconds that its answer took, and its row's age in seconds."""


@dataclass(slots=True)
class Attempt:
    """One run's work on one row: its settlement, and the outcomes for the devices it tried."""

    settlement: Settlement
    recipient_id: int
    outcomes: tuple[tuple[Device, Outcome], ...] = ()
    ledger: Ledger = field(default_factory=Ledger)
    """All devices of the row; empty where none was to be tried."""

    @property
    def smooth(self) -> bool:
        """True for the common case that needs no history: every device accepted it at the first try."""
        entries = self.ledger.entries.values()
        return self.settlement.status == "SENT" and all(e.state is State.SENT and e.attempts == 1 for e in entries)

    @property
    def dead(self) -> list[tuple[str, dict[Any, Any]]]:
        """The token of each device that this attempt found dead, and what is told of it."""
        settled = {"recipient_id": self.recipient_id, "notification_id": self.settlement.notification_id}
        return [
            (
                device.token,
                {**of_lane(device.lane), "device_key": device.key, "reason": outcome.reason[:LONGEST_REASON], **settled},
            )
            for device, outcome in self.outcomes
            if outcome.kind is Kind.DEAD
        ]


# A token is dead for all rows until the API registers it again, by deleting its entry here.
RECORD_DEAD = text("""
    INSERT INTO worker_dead_devices (device_key, provider, app, token, recipient_id, notification_id, reason)
    SELECT device_key, provider, app, token, recipient_id, notification_id, reason
    FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
      device_key VARCHAR(64) PATH '$.device_key', provider VARCHAR(16) PATH '$.provider', app VARCHAR(24) PATH '$.app',
      token TEXT PATH '$.token', recipient_id BIGINT PATH '$.recipient_id', notification_id BIGINT PATH '$.notification_id',
      reason VARCHAR(64) PATH '$.reason')) AS dead
    ON DUPLICATE KEY UPDATE died_at = worker_dead_devices.died_at
""")
KNOWN_DEAD = text("""
    SELECT dead.device_key FROM JSON_TABLE(:keys, '$[*]' COLUMNS (device_key VARCHAR(64) PATH '$')) AS tried
    STRAIGHT_JOIN worker_dead_devices dead ON dead.device_key = CONVERT(tried.device_key USING ascii)
""")

RECORD_HISTORY = text(f"""
    INSERT INTO worker_delivery_history (notification_id, identity, status, reason, devices)
    SELECT history.notification_id, COALESCE({IDENTITY}, ''), history.status, history.reason, history.devices
    FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
      notification_id BIGINT PATH '$.notification_id', status VARCHAR(8) PATH '$.status',
      reason VARCHAR(64) PATH '$.reason', devices JSON PATH '$.devices')) AS history
    LEFT JOIN chat_notifications n ON n.id = history.notification_id
""")  # noqa: S608 - a constant of this project
COUNT = text("""
    INSERT INTO worker_delivery_counts (minute, provider, app, outcome, reason, devices)
    SELECT DATE_FORMAT(NOW(), '%Y-%m-%d %H:%i:00'), provider, app, outcome, reason, devices
    FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
      provider VARCHAR(16) PATH '$.provider', app VARCHAR(24) PATH '$.app', outcome VARCHAR(16) PATH '$.outcome',
      reason VARCHAR(64) PATH '$.reason', devices INT PATH '$.devices')) AS counted
    ON DUPLICATE KEY UPDATE devices = worker_delivery_counts.devices + VALUES(devices)
""")


def record(connection: Connection, attempts: list[Attempt]) -> None:
    """Count what the providers said in these attempts, and write the history of rows that are done and had problems."""
    record_counts(connection, attempts)
    history = [
        {
            "notification_id": attempt.settlement.notification_id,
            "status": attempt.settlement.status,
            "reason": attempt.settlement.reason[:LONGEST_REASON],
            "devices": {key: (e.state, e.attempts, e.reason) for key, e in attempt.ledger.entries.items()},
        }
        for attempt in attempts
        if not attempt.smooth and attempt.settlement.due is None
    ]
    _insert(connection, RECORD_HISTORY, history)


def record_dead(engine: Engine, attempts: list[Attempt]) -> None:
    """Enter the devices that these attempts found dead, with an event each, before any row is locked for its result.

    The API writes this table too, and may hold it locked: then none is entered, and their next row finds them dead again. Who
    holds one that is known keeps no other from it.
    """
    dead = {told["device_key"]: (token, told) for attempt in attempts for token, told in attempt.dead}

    def write(connection: Connection) -> None:
        new = [dead[key] for key in sorted(dead.keys() - known_dead(connection, [*dead]))]
        outbox.emit(connection, "device.dead", *(told for _, told in new))
        _insert(connection, RECORD_DEAD, [{**told, "token": token} for token, told in new])

    if dead:
        apart(engine, write)


def record_counts(connection: Connection, attempts: list[Attempt]) -> None:
    """Count by the minute what the providers said in these attempts."""
    counted = Counter(_counted(device, outcome) for attempt in attempts for device, outcome in attempt.outcomes)
    # Sorted, so that two workers never take the same counters in opposite orders.
    counts = [
        {**of_lane(lane), "outcome": kind, "reason": reason, "devices": devices}
        for (lane, kind, reason), devices in sorted(counted.items())
    ]
    _insert(connection, COUNT, counts)


def apart(engine: Engine, write: Callable[[Connection], None]) -> None:
    """Write what no row's result may depend on, in a transaction of its own, or leave it."""
    try:
        transact(engine, write, patience=APART_SECONDS)
    except DBAPIError as error:
        log.warning("dead devices or counts not written", code=error_code(error))


def known_dead(connection: Connection, keys: list[str]) -> frozenset[str]:
    """Return those of the device keys that earlier rows found dead."""
    looks = (connection.execute(KNOWN_DEAD, {"keys": array}).scalars() for array in json_arrays(keys))
    return frozenset(chain.from_iterable(looks))


def _counted(device: Device, outcome: Outcome) -> tuple[str, Kind, str]:
    """Return lane, outcome and reason to count; names that strangers wrote into rows are one, or they would hide ours."""
    if device.lane not in PROVIDERS and (outcome.kind is Kind.UNCONFIGURED or device.provider not in PROVIDERS):
        return "other", outcome.kind, "not configured on this worker"
    return device.lane, outcome.kind, "" if outcome.kind is Kind.SENT else outcome.reason[:LONGEST_REASON]


def _insert(connection: Connection, statement: TextClause, rows: Sequence[object]) -> None:
    for array in json_arrays(rows):
        connection.execute(statement, {"rows": array})


def announce(attempts: list[Attempt]) -> None:
    """Tell the API at once of the devices that these attempts found dead: an event each in a Redis stream."""
    dead = [told for attempt in attempts for _, told in attempt.dead]
    if not dead:
        return
    try:
        with broker.shared(seconds=ANSWER_SECONDS).pipeline(transaction=False) as pipeline:
            for event in dead:
                pipeline.xadd(DEAD_DEVICES, event, maxlen=MOST_EVENTS, approximate=True)
            pipeline.execute()
    except RedisError as error:
        log.warning("dead devices not announced; they are in worker_dead_devices", devices=len(dead), error=str(error))


def count(answers: list[Answered]) -> None:
    """Count messages for the metrics, their answers' seconds and, of those accepted, their rows' ages; empty the list."""
    for lane, outcome, seconds, age in answers:
        name = lane if of_lane(lane)["provider"] in PROVIDERS else "other"
        counters.add(DELIVERIES, name, outcome.kind, "" if outcome.kind is Kind.SENT else label(outcome.reason))
        counters.observe(SEND_SECONDS, name, seconds=seconds)
        if outcome.kind is Kind.SENT:
            counters.observe(DELIVERED_SECONDS, name, seconds=max(age, 0.0))
    answers.clear()


def label(reason: str) -> str:
    """Return a reason's constant part, so that labels stay few: `fcm 404 NOT_FOUND UNREGISTERED`; odd words are `other`."""
    found = VARIES.sub("", reason)
    if answered := ANSWERED.fullmatch(found):
        words = [word if WORD.fullmatch(word) else "other" for word in answered[2].split()]
        found = " ".join([answered[1], *dict.fromkeys(words)])
    found = re.sub(r"\d{4,}", "#", found)[:LONGEST_LABEL]
    if len(_labels) < MOST_LABELS:
        _labels.add(found)
    return found if found in _labels else "other"


_labels: set[str] = set()
