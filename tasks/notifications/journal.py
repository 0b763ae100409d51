"""What stays of a delivery once its row is settled: dead devices for the API, the story of rows that did not go smoothly,
and outcomes counted by the minute. Written in the transaction that settles the rows.
"""

from collections import Counter
from dataclasses import dataclass, field

import orjson
from sqlalchemy import Connection, text

from tasks.notifications.devices import Device
from tasks.notifications.ledger import State
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.settlement import Settlement


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run's work on one row: what was settled, and what came back for the devices it tried."""

    settlement: Settlement
    recipient_id: int
    outcomes: tuple[tuple[Device, Outcome], ...] = ()
    devices: dict[str, tuple[State, int, str]] = field(default_factory=dict)
    """All devices of the row: key to state, attempts and last reason."""

    @property
    def smooth(self) -> bool:
        """True for the common case that needs no story: every device accepted it at the first try."""
        return self.settlement.status == "SENT" and all(s is State.SENT and n == 1 for s, n, _ in self.devices.values())


# A token is dead for all rows until the API registers it again, by deleting its entry here.
RECORD_DEAD = text("""
    INSERT INTO worker_dead_devices (device_key, provider, token, recipient_id, notification_id, reason)
    SELECT device_key, provider, token, recipient_id, notification_id, reason
    FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
      device_key VARCHAR(40) PATH '$.device_key', provider VARCHAR(16) PATH '$.provider', token TEXT PATH '$.token',
      recipient_id BIGINT PATH '$.recipient_id', notification_id BIGINT PATH '$.notification_id',
      reason VARCHAR(64) PATH '$.reason')) AS dead
    ON DUPLICATE KEY UPDATE died_at = worker_dead_devices.died_at
""")
KNOWN_DEAD = text("""
    SELECT dead.device_key FROM JSON_TABLE(:keys, '$[*]' COLUMNS (device_key VARCHAR(40) PATH '$')) AS tried
    STRAIGHT_JOIN worker_dead_devices dead ON dead.device_key = CONVERT(tried.device_key USING ascii)
""")

RECORD_STORY = text("""
    INSERT INTO worker_delivery_history (notification_id, status, reason, devices)
    SELECT notification_id, status, reason, devices
    FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
      notification_id BIGINT PATH '$.notification_id', status VARCHAR(8) PATH '$.status',
      reason VARCHAR(64) PATH '$.reason', devices JSON PATH '$.devices')) AS story
""")
COUNT = text("""
    INSERT INTO worker_delivery_counts (minute, provider, outcome, reason, devices)
    SELECT DATE_FORMAT(NOW(), '%Y-%m-%d %H:%i:00'), provider, outcome, reason, devices
    FROM JSON_TABLE(:rows, '$[*]' COLUMNS (
      provider VARCHAR(16) PATH '$.provider', outcome VARCHAR(16) PATH '$.outcome', reason VARCHAR(64) PATH '$.reason',
      devices INT PATH '$.devices')) AS counted
    ON DUPLICATE KEY UPDATE devices = worker_delivery_counts.devices + VALUES(devices)
""")


def known_dead(connection: Connection, keys: list[str]) -> set[str]:
    """Return those of the device keys that are dead until the API registers them again."""
    if not keys:
        return set()
    return {row.device_key for row in connection.execute(KNOWN_DEAD, {"keys": orjson.dumps(keys).decode()})}


def record(connection: Connection, attempts: list[Attempt]) -> None:
    """Write what stays of these attempts."""
    dead = [
        {
            "device_key": device.key,
            "provider": device.provider,
            "token": device.token,
            "recipient_id": attempt.recipient_id,
            "notification_id": attempt.settlement.notification_id,
            "reason": outcome.reason[:64],
        }
        for attempt in attempts
        for device, outcome in attempt.outcomes
        if outcome.kind is Kind.DEAD
    ]
    stories = [
        {
            "notification_id": attempt.settlement.notification_id,
            "status": attempt.settlement.status,
            "reason": attempt.settlement.reason[:64],
            "devices": attempt.devices,
        }
        for attempt in attempts
        if not attempt.smooth and attempt.settlement.due is None
    ]
    counted = Counter(
        (device.provider, outcome.kind.value, "" if outcome.kind is Kind.SENT else outcome.reason[:64])
        for attempt in attempts
        for device, outcome in attempt.outcomes
    )
    # Sorted, so that two workers never take the same counters in opposite orders.
    counts = [
        {"provider": provider, "outcome": kind, "reason": reason, "devices": devices}
        for (provider, kind, reason), devices in sorted(counted.items())
    ]
    for statement, rows in ((RECORD_DEAD, dead), (RECORD_STORY, stories), (COUNT, counts)):
        if rows:
            connection.execute(statement, {"rows": orjson.dumps(rows).decode()})
