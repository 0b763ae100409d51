"""The delivery of one row: the devices to try, and the row settled by their answers."""

from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from tasks.notifications import settlement
from tasks.notifications.devices import Device, Devices
from tasks.notifications.journal import Attempt
from tasks.notifications.ledger import Entry, Ledger, State
from tasks.notifications.notification import Notification
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.payload import build_push
from tasks.notifications.providers import Provider

LATE = Outcome(Kind.HELD, "the worker had no time left for it")


class Job(NamedTuple):
    """A claimed row with its devices; `dead` holds the keys of those that earlier rows found dead."""

    notification: Notification
    devices: Devices
    dead: frozenset[str] = frozenset()


@dataclass(slots=True)
class Delivery:
    """A row under way: the devices to try now, and the outcomes so far, None for a device that was not begun."""

    notification: Notification
    devices: Devices
    """Those that the recipient wants to be reached on."""
    ledger: Ledger
    due: list[Device]
    outcomes: dict[str, Outcome | None] = field(default_factory=dict)
    """By device key."""
    prepared: dict[str, Any] = field(default_factory=dict)
    """The push in each provider's shape, made when the first device needs it."""

    def push_for(self, name: str, provider: Provider, now: float) -> Any:
        """Return the push in the shape of the provider that devices call `name`."""
        if name not in self.prepared:
            self.prepared[name] = provider.prepare(build_push(self.notification, now, provider.app))
        return self.prepared[name]

    def enter(self, device: Device, outcome: Outcome | None) -> bool:
        """Note the outcome for a device; return True if it was the last."""
        self.outcomes[device.key] = outcome
        return len(self.outcomes) == len(self.due)

    def conclude(self, now: float) -> Attempt | None:
        """Return the settled row, None if no device was begun: then it goes back to the queue as it was."""
        if not any(self.outcomes.values()):
            return None
        tried = []
        for device in self.due:
            outcome = self.outcomes[device.key]
            self.ledger.record(device.key, outcome or LATE, now, self.notification.expires_at)
            if outcome and outcome.kind is not Kind.HELD:
                tried.append((device, outcome))
        settled = settlement.settle(self.notification, self.devices, self.ledger)
        return Attempt(settled, self.notification.recipient_id, tuple(tried), self.ledger)


def begin(job: Job, now: float) -> Delivery | Attempt:
    """Return the delivery of a row, or the settled row where nothing is to be sent. `now` is in Unix seconds."""
    notification, devices, dead = job
    ledger = Ledger(notification.ledger)
    if ledger.reached:
        # Not yet in the row if that could not be written.
        notification = notification._replace(is_sent=True)
    if ledger.complete:
        return Attempt(settlement.settle(notification, devices, ledger), notification.recipient_id, ledger=ledger)
    early = _without_sending(notification, now)
    if early:
        return Attempt(early, notification.recipient_id)
    wanted = _wanted(notification, devices)
    if devices.usable and not wanted.usable:
        why = "notifications to these devices are off"
        return Attempt(settlement.suppressed(notification, why), notification.recipient_id)
    ledger.keep_only(wanted.usable)
    for device in wanted.usable:
        if device.key in dead and ledger.entries.get(device.key, Entry()).state is State.WAITING:
            ledger.entries[device.key] = Entry(State.DEAD, reason="found dead before")
    due = ledger.due(wanted.usable, inf if notification.by_hand else now)
    if not due:
        return Attempt(settlement.settle(notification, wanted, ledger), notification.recipient_id, ledger=ledger)
    return Delivery(notification, wanted, ledger, due)


def _without_sending(notification: Notification, now: float) -> settlement.Settlement | None:
    """Return the settlement of a row that is not sent at all, None for one that is."""
    if notification.suppressed:
        return settlement.suppressed(notification, notification.suppressed)
    if now >= notification.expires_at:
        return settlement.gave_up(notification, "older than 24 h")
    if notification.claims > settlement.MOST_CLAIMS:
        return settlement.gave_up(notification, f"its worker died {notification.claims - 1} times in a row")
    return None


def _wanted(notification: Notification, devices: Devices) -> Devices:
    """Return the devices that the recipient's mobile and desktop switches leave: browsers are ruled by the latter."""
    if notification.mobile and notification.desktop:
        return devices
    wanted = [d for d in devices.usable if (notification.desktop if d.provider == "webpush" else notification.mobile)]
    return Devices(tuple(wanted), devices.faults)
