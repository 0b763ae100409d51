"""Settle a row by the outcomes over all its devices: SENT, FAILED, BOUNCED or given up, and the sentence that says why."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from tasks.notifications.devices import Devices
from tasks.notifications.ledger import Entry, Ledger, State
from tasks.notifications.notification import Notification
from tasks.notifications.outcome import Kind

Status = Literal["SENT", "FAILED", "BOUNCED"]

# The words that other parts look for at the start of error_message.
SUPPRESSED = "suppressed:"
GAVE_UP = "gave up:"

# So many claims without a result mean that the row itself kills its worker.
MOST_CLAIMS = 5
MOST_NAMED = 5
LONGEST_MESSAGE = 2000
LONGEST_REASON = 64


@dataclass(slots=True)
class Settlement:
    """The new state of one row. `due` (Unix seconds) is set while something can still be tried, with its ledger."""

    notification_id: int
    status: Status
    is_sent: bool
    error_message: str | None
    due: float | None = None
    ledger: dict[str, list[object]] | None = None
    waiting_on: str = ""
    """The one provider whose breaker or pause all its devices wait for, else empty."""
    reason: str = ""

    @property
    def plainly_sent(self) -> bool:
        """True if nothing is to be said of the row but that it was sent."""
        return self.status == "SENT" and self.error_message is None


def suppressed(notification: Notification, why: str) -> Settlement:
    """Settle a row that must not be pushed (any further): the recipient muted, blocked, left or has read it."""
    status: Status = "SENT" if notification.is_sent else "BOUNCED"
    return Settlement(notification.id, status, notification.is_sent, f"{SUPPRESSED} {why}", reason="suppressed")


def gave_up(notification: Notification, why: str) -> Settlement:
    """Settle a row that is not tried again; it stays FAILED."""
    status: Status = "SENT" if notification.is_sent else "FAILED"
    return Settlement(notification.id, status, notification.is_sent, f"{GAVE_UP} {why}"[:LONGEST_MESSAGE], reason="gave up")


def settle(notification: Notification, devices: Devices, ledger: Ledger) -> Settlement:
    """Settle a row by its ledger, which holds an entry for each of its usable devices."""
    entries = ledger.entries
    unserved = {key: entry for key, entry in entries.items() if entry.state is not State.SENT}
    waiting = {key: entry for key, entry in unserved.items() if entry.state is State.WAITING}
    reached = notification.is_sent or len(unserved) < len(entries)

    if waiting:
        first = min(waiting.values(), key=lambda entry: entry.due)
        message = f"{_named(waiting, len(entries))[: LONGEST_MESSAGE - 40]}; next try {_clock(first.due)}"
        when = first.due, ledger.stored(), _waiting_on(waiting), first.reason[:LONGEST_REASON]
        return Settlement(notification.id, "FAILED", reached, message, *when)
    if reached:
        faults = [_named(unserved, len(entries))] if unserved else []
        return Settlement(notification.id, "SENT", True, _sentence([*faults, *devices.faults]) or None)
    if any(entry.state is State.GAVE_UP for entry in entries.values()):
        return gave_up(notification, _named(unserved, len(entries)))
    if unserved:
        faults = [f"no device reached: {_named(unserved, len(entries))}", *devices.faults]
        return Settlement(notification.id, "BOUNCED", False, _sentence(faults), reason="no device reached")
    faults = list(devices.faults) or ["the recipient has none"]
    return Settlement(notification.id, "BOUNCED", False, f"no devices: {_sentence(faults)}", reason="no devices")


def _waiting_on(waiting: dict[str, Entry]) -> str:
    providers = {key.partition(":")[0] for key in waiting}
    held = all(entry.kind in {Kind.HELD, Kind.CREDENTIALS} for entry in waiting.values())
    return providers.pop() if held and len(providers) == 1 else ""


def _named(entries: dict[str, Entry], total: int) -> str:
    """Summarise the devices by state and reason, naming the first few by their short hash."""
    words = {State.WAITING: "to try again"}
    counted = Counter((words.get(entry.state, entry.state.value), entry.reason) for entry in entries.values())
    parts = [
        f"{count} of {total} {state}{f' ({reason})' if reason else ''}"
        for (state, reason), count in counted.most_common(MOST_NAMED)
    ]
    keys = ", ".join(list(entries)[:MOST_NAMED]) + (", …" if len(entries) > MOST_NAMED else "")
    return f"{', '.join(parts)} [{keys}]"


def _sentence(parts: list[str]) -> str:
    return "; ".join(parts)[:LONGEST_MESSAGE]


def _clock(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
