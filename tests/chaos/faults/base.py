"""What a fault is: its name, what it is done to, how long it may last, and what it may excuse."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from tests.chaos.scene import Scene


class Excuse(Enum):
    """Which pushes a fault may have sent twice."""

    NONE = "none"
    """Not one: whoever was sending lived on and wrote its results, later."""
    KILLED = "killed"
    """Those whose rows were claimed when their sender was killed, or stopped for longer than its claims last."""
    UNANSWERED = "unanswered"
    """Those that the provider took while its answers did not come through."""


@dataclass(slots=True)
class Event:
    """A fault that was played. Times are Unix seconds."""

    fault: str
    began: float
    ended: float = 0.0
    in_flight: list[tuple[float, dict[int, float]]] = field(default_factory=list)
    """The moment of each kill or stop, and the rows that were claimed then, by id, with the ends of their leases."""
    host: str = ""
    """On which host the processes ran that were killed or stopped, where that matters."""
    error: str = ""
    bit: int = 0
    """How often it was seen to hit something: requests, connections, statements or processes."""
    whole: bool = True
    """The campaign's end did not cut it short."""
    woke: float = 0.0
    """When a process went on that had been stopped for longer than its claims last."""

    @property
    def played(self) -> bool:
        """False if the campaign's end cut it to nothing."""
        return bool(self.whole or self.bit)


# For so long a fault goes on that has hit nothing yet: another one may keep what it is done to away from it.
PATIENCE_SECONDS = 30.0


@dataclass(slots=True)
class Play:
    """One playing of a fault: what it is done to, the dice, and where it notes what it has hit and cut short."""

    scene: Scene
    chance: random.Random
    over: threading.Event
    event: Event

    def wait(self, seconds: float) -> None:
        """Let time pass, unless the campaign is over."""
        self.over.wait(seconds)

    def until(self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> bool:
        """Wait for so long at most, and not past the campaign's end; return whether it came true."""
        deadline = time.monotonic() + seconds
        while not (met := bool(condition())) and time.monotonic() < deadline and not self.over.wait(0.1):
            pass
        return met

    def bit(self, times: int = 1) -> None:
        """Note that the fault hit something."""
        self.event.bit += times

    def killed(self, name: str) -> None:
        """Note, right after a kill or a stop of a member's processes, which rows were in flight."""
        self.event.host = self.scene.host_of(name)
        self.event.in_flight.append((time.time(), self.scene.leased()))


class ToothlessError(Exception):
    """The fault could not be played as it was meant; the text says what was expected of it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A line of the table. `run` plays it, notes how often it bit, and takes it back; it is bounded by itself."""

    target: str
    """What it is done to: two faults at once are done to different things."""
    does: str
    run: Callable[[Play], None]
    excuse: Excuse = Excuse.NONE
    stops_writes: bool = False
    """The API itself cannot write meanwhile."""
    alone: bool = False
    """Nothing else is done meanwhile."""
