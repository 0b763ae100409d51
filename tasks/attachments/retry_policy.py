"""The retry policy of attachments without a verdict: the waits, and the try with which one is blocked."""

import random
from dataclasses import dataclass

from tasks.attachments.verdicts import Kind

# Up to a half above the ladder's step: files that failed together must not come back together.
JITTER = (1.0, 1.5)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Seconds until the next try: `first`, then each `growth` times the one before, never above `cap`.

    The row becomes (0, 0) with try number `blocks`, and is tried on while it lives: no fault of a service is final.
    """

    first: float
    growth: float
    cap: float
    blocks: int


HOUR, DAY = 3600, 86_400

#   try after    1    2     3     4      5      6 ...
#   STORAGE     5 s  10 s  20 s  40 s   80 s  160 s  up to a day
#   FAILED      5 s  50 s  8 min  1 h                 five of them block a file for good: no fault of an hour may be that
#   MISSING     5 s  20 s  80 s  5 min  21 min       up to a day: a file may still be on its way, or its volume away
LADDERS = {
    Kind.CLAMD: Ladder(first=5, growth=2, cap=HOUR, blocks=8),
    Kind.FAILED: Ladder(first=5, growth=10, cap=HOUR, blocks=8),
    Kind.STORAGE: Ladder(first=5, growth=2, cap=DAY, blocks=8),
    Kind.MISSING: Ladder(first=5, growth=4, cap=DAY, blocks=6),
    Kind.CHANGED: Ladder(first=2, growth=2, cap=DAY, blocks=6),
}


def delay(kind: Kind, attempts: int) -> float:
    """Return the seconds to wait after so many tries in a row without a verdict."""
    ladder = LADDERS[kind]
    return min(ladder.cap, ladder.first * ladder.growth ** min(attempts - 1, 30)) * random.uniform(*JITTER)


def blocks(kind: Kind, attempts: int) -> bool:
    """Return whether the row is (0, 0) from this try on."""
    return attempts >= LADDERS[kind].blocks
