"""Rate limits: token buckets by name or address, in bounded memory."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_KEYS = 10_000


class Buckets:
    """A bucket a key, each holding `per_minute` and refilled evenly over a minute.

    At most MOST_KEYS are remembered; the one not asked for longest is forgotten, which can only be to its advantage.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one; return 0, or in how many seconds there is one again."""
        now = self._clock()
        level, at = self._levels.pop(key, (self._most, now))
        level = min(self._most, level + (now - at) * self._per_second)
        taken = level >= 1
        self._levels[key] = (level - taken, now)
        if len(self._levels) > MOST_KEYS:
            self._levels.popitem(last=False)
        return 0.0 if taken else (1 - level) / self._per_second

    def owe(self, key: str, more: int) -> None:
        """Take `more`, there or not, of a key that was let through: its next one waits for them."""
        level, at = self._levels[key]
        self._levels[key] = (level - more, at)


def neighbourhood(address: str) -> str:
    """Return what one party holds: an IPv4 address, or the /64 of an IPv6 one, in which addresses cost nothing."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return address
    return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
