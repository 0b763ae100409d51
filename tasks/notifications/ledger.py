"""The ledger of one notification: the state of each of its devices, and when it is due again."""

from dataclasses import dataclass
from enum import StrEnum

import orjson

from tasks.notifications import retry_policy
from tasks.notifications.devices import Device
from tasks.notifications.outcome import FINAL, Kind, Outcome

# So long before a row's 24 h are over it has its last try: beat's tick and the request have their time.
LAST_TRY_SECONDS = 30


class State(StrEnum):
    """The state of a device. All but WAITING are final for the row."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"
    FOREIGN = "foreign"
    REFUSED = "refused"
    GAVE_UP = "gave up"


@dataclass(slots=True)
class Entry:
    """One device's state so far. `due` is in Unix seconds; `attempts` counts those that make the next wait longer."""

    state: State = State.WAITING
    attempts: int = 0
    due: float = 0
    reason: str = ""
    kind: Kind | None = None
    used_up: int = 0
    """Attempts among them that got an answer about the device itself; of those there are only so many."""


class Ledger:
    """The entries of a notification by device key. Written to the database only while something can still be tried."""

    def __init__(self, column: str | bytes | None = None) -> None:
        """Read the ledger that an earlier attempt wrote, empty where there was none."""
        stored = orjson.loads(column) if column else {}
        self.entries = {
            key: Entry(State(state), attempts, due, reason, Kind(kind) if kind else None, used_up)
            for key, (state, attempts, due, reason, kind, used_up, *_) in stored.items()
        }

    @property
    def reached(self) -> bool:
        """True if a device has it."""
        return any(entry.state is State.SENT for entry in self.entries.values())

    @property
    def complete(self) -> bool:
        """True if nothing is left to try: such a ledger is stored only while its row could not be written (results.py)."""
        return bool(self.entries) and all(entry.state is not State.WAITING for entry in self.entries.values())

    def stored(self) -> dict[str, list[object]]:
        """Return the content of the column: `{key: [state, attempts, due, reason, kind, used_up]}`."""
        return {key: [e.state, e.attempts, round(e.due, 3), e.reason, e.kind, e.used_up] for key, e in self.entries.items()}

    def due(self, devices: tuple[Device, ...], now: float) -> list[Device]:
        """Return the devices to try now: neither served nor dead, and no sooner than they are due."""
        known = self.entries
        return [d for d in devices if d.key not in known or (known[d.key].state is State.WAITING and known[d.key].due <= now)]

    def record(self, key: str, outcome: Outcome, now: float, expires_at: float) -> None:
        """Enter the outcome for a device: final, due again later, or given up on by the retry policy or for age.

        The last try is just before its time is over, unless the provider has asked for more patience than that.
        """
        entry = self.entries.setdefault(key, Entry())
        entry.attempts += retry_policy.counts(outcome.kind)
        entry.used_up += retry_policy.uses_up(outcome)
        entry.reason, entry.kind = outcome.reason, outcome.kind
        if outcome.kind in FINAL:
            entry.state = State(outcome.kind)
            return
        wait, latest = retry_policy.delay(outcome, entry.attempts, entry.used_up), expires_at - LAST_TRY_SECONDS
        if wait is None or now + (outcome.retry_after or 0) >= latest:
            entry.state = State.GAVE_UP
        else:
            entry.due = min(now + wait, latest)

    def keep_only(self, devices: tuple[Device, ...]) -> None:
        """Forget devices that the row no longer names."""
        self.entries = {device.key: self.entries[device.key] for device in devices if device.key in self.entries}
