"""The retry policy: by class of outcome a first delay and its growth, and how many answers use a device up."""

import random
from typing import NamedTuple

from tasks.notifications.outcome import Kind, Outcome

# A tenth to a half above the ladder's step: rows that failed together must not come back together.
JITTER = (1.1, 1.5)
LONGEST_SECONDS = 3600
# Requests to slow down that are meant for the device itself. Where there was no answer, where it cannot be read or the provider
# cannot take the message now, it is asked again, ever more slowly, for the whole of the row's life.
MOST_THROTTLED = 12


class Ladder(NamedTuple):
    """Delays in seconds: `first`, then each `growth` times the one before, never above LONGEST_SECONDS."""

    first: float
    growth: float


# Google asks for at least 10 s before the first retry, 60 s after a 429 without Retry-After, exponential growth and
# jitter: https://firebase.google.com/docs/cloud-messaging/scale-fcm
#
#   attempt after   1     2     3     4     5     6     7 ...
#   UNAVAILABLE   10 s  20 s  40 s  80 s  160 s 320 s 640 s
#   THROTTLED     60 s  2 m   4 m   8 m   16 m  32 m  1 h
LADDERS = {
    Kind.UNAVAILABLE: Ladder(first=10, growth=2),
    Kind.UNREACHABLE: Ladder(first=10, growth=2),
    Kind.THROTTLED: Ladder(first=60, growth=2),
    Kind.UNKNOWN: Ladder(first=60, growth=4),
    Kind.UPSTREAM: Ladder(first=300, growth=2),
    # These were not asked about the device at all.
    Kind.CREDENTIALS: Ladder(first=15, growth=1),
    Kind.HELD: Ladder(first=5, growth=1),
    Kind.UNCONFIGURED: Ladder(first=1800, growth=1),
}


def counts(kind: Kind) -> bool:
    """Return True if such an outcome is an attempt at the device: the next wait is longer for it."""
    return kind not in LADDERS or LADDERS[kind].growth > 1


def uses_up(outcome: Outcome) -> bool:
    """Return True if the outcome is one of the few answers about the device that it gets before it is given up on."""
    return outcome.kind is Kind.THROTTLED and outcome.everyone is False


def delay(outcome: Outcome, attempts: int, used_up: int = 0) -> float | None:
    """Return the seconds to wait after so many attempts, None when so many of them used the device up that no more are due.

    The provider's Retry-After is a floor: jitter is added above it, never taken off.
    """
    if outcome.kind is Kind.THROTTLED and used_up >= MOST_THROTTLED:
        return None
    first, growth = LADDERS[outcome.kind]
    step = min(LONGEST_SECONDS, first * growth ** min(20, max(0, attempts - 1)))
    return max(step, outcome.retry_after or 0) * random.uniform(*JITTER)
