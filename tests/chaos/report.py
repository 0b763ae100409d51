"""What a campaign leaves behind: a table for people, JSON for machines, and how to play it again."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.campaign import Outcome, Plan
from tests.chaos.faults.base import Event
from tests.chaos.faults.table import FAULTS

# A problem is put to the faults that were at work from so long before the row was written until so long after.
AROUND_SECONDS = 60
SHOWN = 40


@dataclass(slots=True)
class Line:
    """One fault over all its playings. `bit` is how often it was seen to hit something."""

    played: int = 0
    bit: int = 0
    seconds: float = 0.0
    rows: int = 0
    repeated: int = 0
    lost: int = 0
    stuck: int = 0
    wrong: int = 0


def lines(outcome: Outcome) -> dict[str, Line]:
    """Return the table: a line for each fault that was played."""
    found = {name: Line() for name in FAULTS if any(event.fault == name for event in outcome.events)}
    for event in outcome.events:
        line = found[event.fault]
        line.played += event.played
        line.bit += event.bit
        line.seconds += event.ended - event.began
        line.rows += sum(count for _, count, at in outcome.written if event.began <= at <= event.ended)
    for name, repeats in outcome.pushes.excused.items():
        found[name].repeated = repeats
    for problem in outcome.problems:
        for name in {event.fault for event in outcome.events if _may_be_of(problem, event)}:
            setattr(found[name], problem.sort, getattr(found[name], problem.sort) + 1)
    return found


def what(name: str, plan: Plan) -> str:
    """Return what a fault does, as it was played."""
    beside = {"rolling-restart": f", host B on {plan.old} meanwhile" if plan.old else ", all of one version"}
    return FAULTS[name].does + beside.get(name, "")


def totals(outcome: Outcome) -> dict[str, int]:
    """Return how many problems there are of each sort."""
    counted = Counter(problem.sort for problem in outcome.problems)
    return {sort.value: counted[sort] for sort in Sort}


def text(outcome: Outcome, command: str) -> str:
    """Return the report for people; `command` plays the campaign again."""
    table = lines(outcome)
    width = max(map(len, table), default=5)
    out = [f"{'fault':{width}}  played     bit  seconds    rows  repeated  lost  stuck  wrong"]
    out += [
        f"{name:{width}}  {line.played:6}  {line.bit:6,}  {line.seconds:7.0f}  {line.rows:6,}  {line.repeated:8,}"
        f"  {line.lost:4}  {line.stuck:5}  {line.wrong:5}"
        for name, line in table.items()
    ]
    found, pushes = totals(outcome), outcome.pushes
    quiet = (
        "not all was done in time"
        if outcome.settled_after is None
        else f"all was done {outcome.settled_after:.0f} s after the last fault"
    )
    out += [
        "",
        f"commit {outcome.plan.commit}" + (f", beside {outcome.plan.old}" if outcome.plan.old else ""),
        f"seed {outcome.plan.seed}, {outcome.seconds:.0f} s of {len(outcome.events)} faults; {quiet}",
        f"{outcome.notifications:,} notifications to {pushes.devices:,} devices: " + _counted(pushes.rows),
        f"{pushes.accepted:,} pushes taken by the providers, {pushes.repeated:,} of them repeats,"
        f" {sum(pushes.excused.values()):,} of what was in flight at a kill or had its answer cut off",
        f"{outcome.attachments:,} attachments: " + _counted(outcome.files.verdicts),
        f"{outcome.doomed:,} old rows deleted; {outcome.tapes.dumps} dumps and {outcome.tapes.archives} archives, all verified;"
        f" the newest dump restored with {outcome.tapes.restored:,} notifications",
        f"the disk was filled by {outcome.disk}; processes ended: {_counted(Counter(outcome.ends))}",
        "calls of the gateway: {:,} taken, {:,} that it could not take then".format(*outcome.gateway),
        f"the API's own statements that were refused: {_counted(Counter(outcome.refused))}",
        "",
        ", ".join(f"{count} {sort}" for sort, count in found.items()),
    ]
    if outcome.problems:
        out += ["", *(f"  {problem.sort}: {problem.what}" for problem in _various(outcome.problems)), "", f"again: {command}"]
    return "\n".join(out)


def as_json(outcome: Outcome, command: str) -> dict[str, Any]:
    """Return the report for machines."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": outcome.plan.commit,
        "old_commit": outcome.plan.old or None,
        "command": command,
        "seed": outcome.plan.seed,
        "seconds": round(outcome.seconds),
        "settled_after_seconds": None if outcome.settled_after is None else round(outcome.settled_after),
        **totals(outcome),
        "notifications": outcome.notifications,
        "devices": outcome.pushes.devices,
        "accepted": outcome.pushes.accepted,
        "repeated": outcome.pushes.repeated,
        "repeats_excused": dict(outcome.pushes.excused),
        "attachments": outcome.attachments,
        "rows_deleted": outcome.doomed,
        "gateway_calls_taken": outcome.gateway[0],
        "gateway_calls_missed": outcome.gateway[1],
        "dumps": outcome.tapes.dumps,
        "archives": outcome.tapes.archives,
        "notifications_restored": outcome.tapes.restored,
        "disk": outcome.disk,
        "faults": {
            name: {field: round(getattr(line, field)) for field in Line.__slots__} | {"what": what(name, outcome.plan)}
            for name, line in lines(outcome).items()
        },
        "problems": [f"{problem.sort}: {problem.what}" for problem in outcome.problems[:1000]],
    }


def _may_be_of(problem: Problem, event: Event) -> bool:
    return bool(problem.at) and event.began - AROUND_SECONDS <= problem.at <= event.ended + AROUND_SECONDS


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name.strip()}" for name, count in counts.most_common() if count) or "none"


def _various(problems: list[Problem]) -> list[Problem]:
    """Return the first few of each sort."""
    return [problem for sort in Sort for problem in [each for each in problems if each.sort is sort][:SHOWN]]
