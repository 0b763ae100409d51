"""The size of the next batch: as many rows as lately fitted into the time that a transaction may last."""

SMALLEST = 50
# One slow moment halves the size at most, one fast batch doubles it at most.
MOST_GROWTH = 2.0
MOST_SHRINK = 0.5


def next_size(size: int, seconds: float, *, target_seconds: float, largest: int) -> int:
    """Given a batch of `size` rows that took `seconds`, return the size that should take `target_seconds`."""
    factor = target_seconds / max(seconds, 0.001)
    wanted = size * min(max(factor, MOST_SHRINK), MOST_GROWTH)
    return int(min(max(wanted, min(SMALLEST, largest)), largest))
