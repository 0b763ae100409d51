"""Which accepted messages may have lost their answers, by what is known of the connections that they came on."""

from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

from devstack.emulators.connections import STREAMS_PER_CONNECTION
from devstack.emulators.log import Accepted

# What comes later finds nobody who waits for it.
PATIENCE_SECONDS = 10.0
# Longer than that, with what it takes to get there.
ANSWER_SECONDS = 12.0
# Clocks are read a moment before or after what they stand for.
MARGIN_SECONDS = 0.5


class Cut(NamedTuple):
    """A connection ("address:port", as the emulator sees it) on which no answer passed any more. Times are Unix seconds."""

    connection: str
    began: float
    ended: float


def unanswered(accepted: Iterable[Accepted], cuts: Iterable[Cut]) -> set[Accepted]:
    """Return the messages whose answers were torn or late, or may have been on their way when their connection was cut.

    `accepted` is in the log's order. Before a cut no more answers can be on their way than a connection has streams.
    """
    by_connection = defaultdict[str, list[Cut]](list)
    for cut in cuts:
        by_connection[cut.connection].append(cut)
    found: set[Accepted] = set()
    recent = {id(cut): deque[Accepted](maxlen=STREAMS_PER_CONNECTION) for each in by_connection.values() for cut in each}
    for message in accepted:
        if message.torn or message.waited >= PATIENCE_SECONDS:
            found.add(message)
        for cut in by_connection.get(message.connection, ()):
            if cut.began - ANSWER_SECONDS <= message.t < cut.began:
                recent[id(cut)].append(message)
            elif cut.began <= message.t <= cut.ended + MARGIN_SECONDS:
                found.add(message)
    return found.union(*recent.values())
