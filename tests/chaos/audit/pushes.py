"""Notifications: what each row promises, what the providers really took, and which repeats a kill or a lost answer excuses."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from sqlalchemy import Engine, text

from devstack.chat import DEAD
from devstack.emulators.client import Accepted
from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.chores import FIRST_OLD_ID
from tests.chaos.faults.base import Event, Excuse
from tests.chaos.pushes import Written

ROWS = text(f"""
    SELECT id, device_tokens, delivery_status AS status, is_sent, sent_at IS NOT NULL AS has_time, is_read,
           COALESCE(error_message, '') AS message, UNIX_TIMESTAMP(created_at) AS created_at
    FROM chat_notifications WHERE id < {FIRST_OLD_ID}
""")
LEFT = text("SELECT COUNT(*) FROM worker_deliveries")
# The emulator's clock and ours are one; its log is rounded to milliseconds.
MARGIN_SECONDS = 1.0
# A request that is out when the answers stop has been out for no longer than its deadline and what settles it.
REQUEST_SECONDS = 12.0

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """A notification as it is in the end."""

    id: int
    tokens: tuple[str, ...]
    status: str
    is_sent: bool
    has_time: bool
    is_read: bool
    message: str
    created_at: float


@dataclass(slots=True)
class Pushes:
    """The account. `excused` counts repeats by the fault that excuses them."""

    rows: Counter[str] = field(default_factory=Counter)
    devices: int = 0
    accepted: int = 0
    repeated: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


def read_rows(engine: Engine) -> Iterator[Row]:
    """Yield the rows that the API's clients have written, as they are now."""
    with engine.connect().execution_options(yield_per=10_000) as connection:
        for row in connection.execute(ROWS):
            yield Row(
                row.id,
                tuple(token_of(entry) for entry in json.loads(row.device_tokens)),
                row.status,
                bool(row.is_sent),
                bool(row.has_time),
                bool(row.is_read),
                row.message,
                float(row.created_at),
            )


def token_of(entry: object) -> str:
    """Return a device as the providers' log names it."""
    if not isinstance(entry, dict):
        return str(entry)
    return str(entry.get("token") or str(entry["endpoint"]).rpartition("/")[2])


def judge(rows: Iterable[Row], accepted: Iterable[Accepted], written: Written, events: list[tuple[Event, Excuse]]) -> Pushes:
    """Hold the rows against what the providers took."""
    account, takings = Pushes(), defaultdict[Key, list[float]](list)
    for push in accepted:
        takings[str(push.notification_id), push.token].append(push.t)
    account.accepted = sum(map(len, takings.values()))
    seen: dict[int, float] = {}
    for row in rows:
        seen[row.id] = row.created_at
        account.rows[f"{row.status} {row.message.partition(':')[0]}" if row.status != "SENT" else "SENT"] += 1
        account.devices += len(row.tokens)
        account.problems += _of_row(row, takings, written)
    for first, count, at in written.batches:
        missing = [number for number in range(first, first + count) if number not in seen]
        account.problems += [Problem(Sort.WRONG, f"notification {number} is gone", at) for number in missing]
    for (number, token), times in takings.items():
        if int(number) not in seen:
            account.problems.append(Problem(Sort.WRONG, f"a push of notification {number}, which is not there", times[0]))
        elif len(times) > 1:
            _repeats(account, int(number), token, sorted(times), events)
    return account


def left_over(engine: Engine) -> list[Problem]:
    """Return a problem if a worker's lease or retry is left where nothing is to be done any more."""
    with engine.connect() as connection:
        left = connection.execute(LEFT).scalar_one()
    return [Problem(Sort.STUCK, f"{left} entries are left in worker_deliveries")] if left else []


def _of_row(row: Row, takings: dict[Key, list[float]], written: Written) -> list[Problem]:
    live = [token for token in row.tokens if not token.startswith(DEAD)]
    taken = [token for token in live if takings.get((str(row.id), token))]
    name, problems = f"notification {row.id}", []
    unwanted = row.message.startswith("suppressed:") and row.is_read and row.id in written.read
    match row.status:
        case "SENT":
            if not row.is_sent or not row.has_time:
                problems.append(Problem(Sort.WRONG, f"{name} is SENT without is_sent or sent_at", row.created_at))
            if len(taken) < len(live) and not unwanted:
                sentence = (
                    f"{name} is SENT, but {len(live) - len(taken)} of its {len(live)} devices never got it: {row.message}"
                )
                problems.append(Problem(Sort.LOST, sentence, row.created_at))
        case "BOUNCED":
            # One whose push went out, whose worker was then killed and whose row was then read is both sent and unwanted.
            if live and not unwanted:
                problems.append(Problem(Sort.WRONG, f"{name} is BOUNCED with live devices: {row.message}", row.created_at))
        case "FAILED" if row.message.startswith("gave up:"):
            problems.append(Problem(Sort.LOST, f"{name} was given up: {row.message}", row.created_at))
        case _:
            problems.append(Problem(Sort.STUCK, f"{name} is still {row.status}: {row.message}", row.created_at))
    dead = [token for token in row.tokens if token.startswith(DEAD) and takings.get((str(row.id), token))]
    return problems + [Problem(Sort.WRONG, f"{name} was taken by the dead device {token}", row.created_at) for token in dead]


def _repeats(account: Pushes, number: int, token: str, times: list[float], events: list[tuple[Event, Excuse]]) -> None:
    """Count a device's further pushes, each under the fault that cut short the one before it."""
    for before, after in pairwise(times):
        account.repeated += 1
        excuse = next((event.fault for event, excuse in events if _excuses(event, excuse, number, before, after)), None)
        if excuse:
            account.excused[excuse] += 1
        else:
            sentence = f"notification {number} was sent again to {token} after {after - before:.1f} s, and nothing excuses it"
            account.problems.append(Problem(Sort.WRONG, sentence, before))


def _excuses(event: Event, excuse: Excuse, number: int, before: float, after: float) -> bool:
    """Return whether a fault has cut short the push that was taken at `before`, so that it went out again at `after`."""
    if excuse is Excuse.KILLED:
        return any(
            before <= at + MARGIN_SECONDS and after >= at - MARGIN_SECONDS and number in ids for at, ids in event.in_flight
        )
    if excuse is Excuse.UNANSWERED:
        return event.began - REQUEST_SECONDS <= before <= event.ended + MARGIN_SECONDS and after >= event.began
    return False
