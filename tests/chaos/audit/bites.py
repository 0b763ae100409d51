"""The faults themselves: each that was played has hit something, at least once in a campaign."""

from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.faults.base import Event


def judge(events: list[Event]) -> list[Problem]:
    """Return a problem for each fault that could not be played, or was played to its end and never hit anything."""
    played = {event.fault for event in events if event.whole and not event.error}
    harmless = sorted(played - {event.fault for event in events if event.bit})
    found = [f"the fault {event.fault} could not be played: {event.error}" for event in events if event.error]
    found += [f"the fault {name} was played and hit nothing" for name in harmless]
    return [Problem(Sort.WRONG, what) for what in found]
