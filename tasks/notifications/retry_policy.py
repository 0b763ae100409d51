"""The retry policy: by class of outcome a first delay, a growth, a cap and a number of attempts."""

import random
from dataclasses import dataclass

from tasks.notifications.outcome import Kind, Outcome

# A tenth to a half above the ladder's step: rows that failed together must not come back together.
JITTER = (1.1, 1.5)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Delays in seconds: `first`, then each `growth` times the one before, never above `cap`. `attempts` None: until 24 h.

    Only an answer about the device itself uses it up. Where there was none, where it cannot be read or the provider cannot take
    the message now, it is asked again, ever more slowly, for the whole of the row's life.
    """

    first: float
    growth: float
    cap: float
    attempts: int | None


# Google asks for at least 10 s before the first retry, 60 s after a 429 without Retry-After, exponential growth and
# jitter: https://firebase.google.com/docs/cloud-messaging/scale-fcm
#
#   attempt after   1     2     3     4     5     6     7 ...
#   UNAVAILABLE   10 s  20 s  40 s  80 s  160 s 320 s 640 s
#   THROTTLED     60 s  2 m   4 m   8 m   16 m  32 m  1 h
LADDERS = {
    Kind.UNAVAILABLE: Ladder(first=10, growth=2, cap=3600, attempts=None),
    Kind.UNREACHABLE: Ladder(first=10, growth=2, cap=3600, attempts=None),
    Kind.THROTTLED: Ladder(first=60, growth=2, cap=3600, attempts=12),
    Kind.UNKNOWN: Ladder(first=60, growth=4, cap=3600, attempts=None),
    Kind.UPSTREAM: Ladder(first=300, growth=2, cap=3600, attempts=None),
    # These were not asked about the device at all.
    Kind.CREDENTIALS: Ladder(first=15, growth=1, cap=15, attempts=None),
    Kind.HELD: Ladder(first=5, growth=1, cap=5, attempts=None),
    Kind.UNCONFIGURED: Ladder(first=1800, growth=1, cap=1800, attempts=None),
}


def counts(kind: Kind) -> bool:
    """Return True if such an outcome is an attempt at the device: the next wait is longer for it."""
    ladder = LADDERS.get(kind)
    return ladder is None or ladder.growth > 1


def uses_up(outcome: Outcome) -> bool:
    """Return True if the outcome is one of the few answers about the device that it gets before it is given up on."""
    ladder = LADDERS.get(outcome.kind)
    return ladder is not None and ladder.attempts is not None and outcome.everyone is False


def delay(outcome: Outcome, attempts: int, used_up: int = 0) -> float | None:
    """Return the seconds to wait after so many attempts, None when so many of them used the device up that no more are due.

    The provider's Retry-After is a floor: jitter is added above it, never taken off.
    """
    ladder = LADDERS[outcome.kind]
    if ladder.attempts is not None and used_up >= ladder.attempts:
        return None
    step = min(ladder.cap, ladder.first * ladder.growth ** min(20, max(0, attempts - 1)))
    return max(step, outcome.retry_after or 0) * random.uniform(*JITTER)
