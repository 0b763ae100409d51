"""The senders: for each provider a bounded number of tasks, each sending one message at a time while there are messages."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from tasks.notifications import journal
from tasks.notifications.delivery import Delivery
from tasks.notifications.devices import Device, of_lane
from tasks.notifications.gate import ANY, Gate
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers import Provider, absent

log = structlog.get_logger(__name__)

Message = tuple[Delivery, Device, Callable[[], bool]]

# What may be true of a good token that is tried with another app's credentials: its row says which app that was.
ABOUT_THE_APP = {Kind.FOREIGN, Kind.UPSTREAM}

# Work in a row costs a third to a half of what it costs between requests: answers are counted together, messages made when put.
COUNTED_AT_ONCE = 100


class Turns(OrderedDict[int, deque[Message]]):
    """The messages that wait, by recipient, whose turn it is for one: a thousand devices of one would hold all others up."""

    def put(self, recipient: int, message: Message) -> None:
        self.setdefault(recipient, deque()).append(message)

    def take(self) -> Message:
        recipient, messages = self.popitem(last=False)
        message = messages.popleft()
        if messages:
            self[recipient] = messages
        return message


@dataclass(slots=True)
class Line:
    """The messages that wait for a provider, and how many more may be sent at once."""

    free: int
    chat: Turns = field(default_factory=Turns)
    others: Turns = field(default_factory=Turns)


@dataclass(slots=True)
class Senders:
    """Sends deliveries in order, the chat's first. A sender's task ends when nothing waits: an idle run has none.

    Each provider has a line of its own, so that one that is silent holds no other up.
    """

    providers: Mapping[str, Provider]
    gate: Gate
    tasks: asyncio.TaskGroup
    in_flight: int
    """How many may be sent at once, to each provider."""
    done: Callable[[Delivery], None]
    """Is told of a delivery when its last answer is in."""
    _lines: dict[str, Line] = field(default_factory=dict)
    _answers: list[journal.Answered] = field(default_factory=list)

    def put(self, delivery: Delivery, in_time: Callable[[], bool]) -> None:
        """Have the devices of a delivery tried. A message that `in_time` forbids to begin is entered as None."""
        for device in delivery.due:
            name = device.provider if device.lane in self.providers else ""  # of the names that strangers write one is enough
            if (line := self._lines.get(name)) is None:
                line = self._lines[name] = Line(self.in_flight)
            messages = line.others if delivery.notification.notification_type == "SYSTEM" else line.chat
            with suppress(Exception):  # an absent provider, or a fault that `_send` meets again and answers for
                delivery.push_for(device.lane, self.providers[device.lane], self.gate.now())
            messages.put(delivery.notification.recipient_id, (delivery, device, in_time))
            if line.free:
                line.free -= 1
                self.tasks.create_task(self._send_all(line))

    async def _send_all(self, line: Line) -> None:
        while messages := line.chat or line.others:
            delivery, device, in_time = messages.take()
            outcome = await self._send(delivery, device) if in_time() else None
            if delivery.enter(device, outcome):
                self.done(delivery)
            if len(self._answers) >= COUNTED_AT_ONCE or not messages:
                journal.count(self._answers)
        line.free += 1

    async def _send(self, delivery: Delivery, device: Device) -> Outcome:
        """Return the outcome for one device."""
        lane = device.lane
        provider = self.providers.get(lane)
        if provider is None:
            return absent(lane)
        if (why := self.gate.holds(lane)) is not None:
            return Outcome(Kind.HELD, f"{lane} is held: {why}")
        began = time.monotonic()
        try:
            prepared = delivery.push_for(lane, provider, self.gate.now())
            outcome = await provider.send(prepared, device)
        except Exception as error:
            log.exception("provider failed", lane=lane, device=device.key)
            outcome = Outcome(Kind.UNKNOWN, f"{lane}: {type(error).__name__} in our own code")
        tried_as = f"{device.options.get('environment') or ANY}:{provider.identity}"
        outcome = self.gate.note(lane, outcome, tried_as, recipient=delivery.notification.recipient_id)
        self._answers.append((lane, outcome, time.monotonic() - began, self.gate.now() - delivery.notification.created_at))
        if outcome.kind in ABOUT_THE_APP:
            outcome = outcome._replace(reason=f"{outcome.reason} (app {of_lane(lane)['app']})")
        return outcome
