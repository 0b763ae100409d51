"""The API itself: it can write at all times, but for the faults that take its own database away."""

from collections.abc import Iterable, Mapping

from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.faults.base import Event, Fault

# A statement each quarter of a second: within so long there is one, on a slow machine too.
SHORTEST_SECONDS = 2.0
# What the API's client may take to find its way back.
BACK_SECONDS = 12.0


def judge(events: list[Event], faults: Mapping[str, Fault], commits: Iterable[float]) -> list[Problem]:
    """Return a problem for each fault that should not have hindered the API's inserts, and during which none came through."""
    stopped = [event for event in events if faults[event.fault].stops_writes]
    moments = sorted(commits)
    return [
        Problem(Sort.STUCK, f"the API could not write for the {event.ended - event.began:.0f} s of {event.fault}", event.began)
        for event in events
        if event.ended - event.began >= SHORTEST_SECONDS
        and not any(event.began <= at <= event.ended for at in moments)
        and not any(other.began <= event.ended and event.began <= other.ended + BACK_SECONDS for other in stopped)
    ]
