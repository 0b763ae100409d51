"""One row's delivery: which devices to try, what came back, what that makes of the row."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from tasks.notifications import measures, settlement
from tasks.notifications.devices import Device, Devices
from tasks.notifications.gate import Gate
from tasks.notifications.journal import Attempt
from tasks.notifications.ledger import Entry, Ledger, State
from tasks.notifications.notification import Notification
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.payload import Push, build_push
from tasks.notifications.providers import absent
from tasks.notifications.providers.base import Provider

log = structlog.get_logger(__name__)


class NotTried(Exception):  # noqa: N818 - a result, not an error
    """The row was not begun; it goes back to the queue as it was."""


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed row with its devices; `dead` holds the keys of those that earlier rows found dead."""

    notification: Notification
    devices: Devices
    dead: frozenset[str] = frozenset()


class Delivery:
    """Delivers rows through the providers, with a bounded number of requests under way."""

    def __init__(self, providers: Mapping[str, Provider], gate: Gate, in_flight: int, now: Callable[[], float]) -> None:
        """`now` returns the database's time in Unix seconds."""
        self._providers = providers
        self._gate = gate
        self._slots = asyncio.Semaphore(in_flight)
        self._now = now

    async def attempt(self, job: Job, in_time: Callable[[], bool]) -> Attempt:
        """Try the devices that are due and return what became of the row. Raise NotTried if `in_time` forbids to begin."""
        notification = job.notification
        ledger = Ledger(notification.ledger)
        if ledger.reached:
            # Not yet in the row if that could not be written.
            notification = replace(notification, is_sent=True)
        if ledger.complete:
            return Attempt(settlement.settle(notification, job.devices, ledger), notification.recipient_id, ledger=ledger)
        early = self._without_sending(notification)
        if early:
            return Attempt(early, notification.recipient_id)
        devices = self._wanted(notification, job.devices)
        if job.devices.usable and not devices.usable:
            return Attempt(
                settlement.suppressed(notification, "notifications to these devices are off"), notification.recipient_id
            )
        ledger.keep_only(devices.usable)
        for device in devices.usable:
            if device.key in job.dead and device.key not in ledger.entries:
                ledger.entries[device.key] = Entry(State.DEAD, reason="found dead before")
        outcomes = await self._send_all(notification, ledger.due(devices.usable, self._now()), in_time)
        for device, outcome in outcomes:
            ledger.record(device.key, outcome, self._now(), notification.expires_at)
        return Attempt(
            settlement.settle(notification, devices, ledger),
            notification.recipient_id,
            tuple((device, outcome) for device, outcome in outcomes if outcome.kind is not Kind.HELD),
            ledger,
        )

    def _without_sending(self, notification: Notification) -> settlement.Settlement | None:
        """Return the settlement of a row that is not sent at all, None for one that is."""
        if notification.suppressed:
            return settlement.suppressed(notification, notification.suppressed)
        if self._now() >= notification.expires_at:
            return settlement.gave_up(notification, "older than 24 h")
        if notification.claims > settlement.MOST_CLAIMS:
            return settlement.gave_up(notification, f"its worker died {notification.claims - 1} times in a row")
        return None

    def _wanted(self, notification: Notification, devices: Devices) -> Devices:
        """Return the devices that the recipient's mobile and desktop switches leave."""
        allowed = {"mobile": notification.mobile, "desktop": notification.desktop}
        usable = tuple(
            device
            for device in devices.usable
            if device.provider not in self._providers or allowed[self._providers[device.provider].channel]
        )
        return Devices(usable, devices.faults)

    async def _send_all(
        self, notification: Notification, devices: list[Device], in_time: Callable[[], bool]
    ) -> list[tuple[Device, Outcome]]:
        if not devices:
            return []
        push = build_push(notification, self._now())
        prepared: dict[str, Any] = {}
        sends = (self._send(device, push, prepared, in_time) for device in devices)
        outcomes = [await next(sends)] if len(devices) == 1 else await asyncio.gather(*sends)
        if all(outcome is None for outcome in outcomes):
            raise NotTried
        late = Outcome(Kind.HELD, "the worker had no time left for it")
        return [(device, outcome or late) for device, outcome in zip(devices, outcomes, strict=True)]

    async def _send(self, device: Device, push: Push, prepared: dict[str, Any], in_time: Callable[[], bool]) -> Outcome | None:
        """Return what came back for one device, None if it was not its turn in time.

        `prepared` holds the push in each provider's shape, made when the first device needs it.
        """
        provider = self._providers.get(device.provider)
        if provider is None:
            return absent(device.provider)
        async with self._slots:
            if not in_time():
                return None
            if (why := self._gate.holds(device.provider)) is not None:
                return Outcome(Kind.HELD, f"{device.provider} is held: {why}")
            try:
                if device.provider not in prepared:
                    prepared[device.provider] = provider.prepare(push)
                began = time.monotonic()
                outcome = await provider.send(prepared[device.provider], device)
                measures.sent(device.provider, outcome, time.monotonic() - began)
            except Exception as error:
                log.exception("provider failed", provider=device.provider, device=device.key)
                outcome = Outcome(Kind.UNKNOWN, f"{device.provider}: {type(error).__name__} in our own code")
        self._gate.note(device.provider, outcome)
        return outcome
