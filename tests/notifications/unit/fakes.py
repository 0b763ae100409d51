"""A provider and a queue in memory, for what delivery and drain do with any of them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from tasks.notifications.apps import DEFAULT, App
from tasks.notifications.breaker import BreakerState, Standing
from tasks.notifications.delivery import Job
from tasks.notifications.devices import Device, Devices
from tasks.notifications.gate import Gate
from tasks.notifications.journal import Attempt
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.payload import Push
from tasks.notifications.queue import Queue

from .made import NOW, a_device, a_notification


class MemoryProvider:
    """Answers by token: an Outcome, or an exception to raise; SENT where nothing is said."""

    identity = "00000000"
    app: App = DEFAULT

    def __init__(
        self,
        answers: dict[str, Outcome | Exception] | None = None,
        *,
        seconds: float = 0,
        slow: dict[str, float] | None = None,
    ) -> None:
        """Each answer takes `seconds`, unless `slow` says otherwise for its token."""
        self.answers = answers or {}
        self.seconds = seconds
        self.slow = slow or {}
        self.sent: list[str] = []
        self.under_way = self.most_under_way = 0

    def prepare(self, push: Push) -> Any:
        if isinstance(failure := self.answers.get("prepare"), Exception):
            raise failure
        return push

    prepare_withdrawal = prepare

    async def send(self, prepared: Any, device: Device, *, dry_run: bool = False) -> Outcome:
        del prepared, dry_run
        self.sent.append(device.token)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(self.slow.get(device.token, self.seconds))
        self.under_way -= 1
        answer = self.answers.get(device.token, Outcome(Kind.SENT))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def show(self, prepared: Any) -> dict[str, Any]:
        return {"push": prepared}

    async def warm(self) -> None:
        pass

    async def close(self) -> None:
        pass


class MemoryQueue(Queue):
    """Notes what is settled and given back; `settled` is called with each batch first."""

    def __init__(self, on_settle: Callable[[list[Attempt]], None] = lambda _attempts: None) -> None:
        self.settled: dict[int, Attempt] = {}
        self.given_back: list[int] = []
        self.on_settle = on_settle

    def settle(self, attempts: list[Attempt]) -> Counter[str]:
        self.on_settle(attempts)
        self.settled |= {attempt.settlement.notification_id: attempt for attempt in attempts}
        return Counter(attempt.settlement.status for attempt in attempts)

    def release(self, ids: list[int]) -> None:
        self.given_back += ids


def a_gate(**states: BreakerState) -> Gate:
    """A gate that has asked, and always gets these states."""
    gate = Gate(states, lambda _tallies: {name: Standing(state, NOW) for name, state in states.items()})
    asyncio.run(gate.ask())
    return gate


def a_job(number: int = 7, *tokens: str, dead: frozenset[str] = frozenset(), **changes: Any) -> Job:
    """Row `number` for FCM devices with these tokens, or one of its own."""
    devices = tuple(a_device(token) for token in tokens or (f"phone-{number}",))
    return Job(a_notification(id=number, **changes), Devices(devices), dead)
