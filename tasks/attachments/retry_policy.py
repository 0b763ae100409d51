"""The retry policy of attachments without a verdict: the waits, and the number of tries after which one is blocked."""

import random
from dataclasses import dataclass

from tasks.attachments.verdicts import Kind

# Up to a half above the ladder's step: files that failed together must not come back together.
JITTER = (1.0, 1.5)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Seconds until the next try: `first`, then each `growth` times the one before, never above `cap`.

    The row becomes (0, 0) with try number `blocks`; after try number `ends` nobody tries again.
    """

    first: float
    growth: float
    cap: float
    blocks: int
    ends: int


# A file that is not there may still be on its way; a scanner or a storage that is away is not the file's fault, so those
# block after ten minutes and go on for a week, once an hour: when the service is back, they heal by themselves.
#
#   try after    1    2     3     4      5      6 ...
#   CLAMD       5 s  10 s  20 s  40 s   80 s  160 s  up to 1 h
#   MISSING     5 s  20 s  80 s  5 min  21 min
LADDERS = {
    Kind.CLAMD: Ladder(first=5, growth=2, cap=3600, blocks=8, ends=175),
    Kind.STORAGE: Ladder(first=5, growth=2, cap=3600, blocks=8, ends=175),
    Kind.MISSING: Ladder(first=5, growth=4, cap=3600, blocks=6, ends=6),
    Kind.CHANGED: Ladder(first=2, growth=2, cap=300, blocks=6, ends=24),
}


def delay(kind: Kind, attempts: int) -> float | None:
    """Return the seconds to wait after so many tries in a row without a verdict, None when no more are due."""
    ladder = LADDERS[kind]
    if attempts >= ladder.ends:
        return None
    return min(ladder.cap, ladder.first * ladder.growth ** (attempts - 1)) * random.uniform(*JITTER)


def blocks(kind: Kind, attempts: int) -> bool:
    """Return whether the row is (0, 0) from this try on."""
    return attempts >= LADDERS[kind].blocks
