"""Notifications: what each row promises, what the providers really took, and which repeats a kill or a lost answer excuses."""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import Engine, text

from devstack.chat import DEAD
from devstack.emulators.answers import digest_of
from devstack.emulators.log import Accepted
from tasks.notifications.queue import LEASE_SECONDS
from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.chores import FIRST_OLD_ID
from tests.chaos.faults.base import Event, Excuse
from tests.chaos.pushes import Written
from tests.chaos.unanswered import ANSWER_SECONDS

ROWS = text(f"""
    SELECT id, device_tokens, title, body, delivery_status AS status, is_sent, sent_at IS NOT NULL AS has_time, is_read,
           COALESCE(error_message, '') AS message, UNIX_TIMESTAMP(created_at) AS created_at
    FROM chat_notifications WHERE id < {FIRST_OLD_ID}
""")
LEFT = text("SELECT COUNT(*) FROM worker_deliveries")
# The emulator's clock and ours are one; its log is rounded to milliseconds.
MARGIN_SECONDS = 1.0
# Whoever got no answer waits for 10 s at least (retry_policy.py), and a late push is taken some seconds after its sender gave
# up: what comes sooner has another reason.
SOONEST_SECONDS = 5.0
# And for so long at most: the first five steps of that ladder with their jitter, and a lease.
LATEST_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Row:
    """A notification as it is in the end."""

    id: int
    tokens: tuple[str, ...]
    digest: str
    status: str
    is_sent: bool
    has_time: bool
    is_read: bool
    message: str
    created_at: float


class Taking(NamedTuple):
    """A push that a provider took. `cut`: its answer may not have come through; `waited`: for so many seconds it lay there.

    `host` is the one that it came from, empty where that is not known.
    """

    at: float
    collapse: str
    digest: str
    cut: bool
    waited: float = 0.0
    host: str = ""


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
                tuple(sys.intern(token_of(entry)) for entry in json.loads(row.device_tokens)),
                sys.intern(digest_of({"title": row.title, "body": row.body})),
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


def judge(
    rows: Iterable[Row],
    accepted: Iterable[Accepted],
    written: Written,
    events: list[tuple[Event, Excuse]],
    unanswered: Collection[Accepted] = frozenset(),
    hosts: Mapping[str, str] = MappingProxyType({}),
) -> Pushes:
    """Hold the rows against what the providers took.

    `unanswered` are the pushes whose answers may have been cut off, `hosts` tells whose a connection to the providers was.
    """
    account, takings = Pushes(), defaultdict[str, dict[str, list[Taking]]](dict)
    for push in accepted:
        # The browsers' push service is reached by one way from all hosts: their subscriptions name it.
        host = "" if push.provider == "webpush" else hosts.get(push.connection, "")
        words = sys.intern(push.collapse or ""), sys.intern(push.digest)
        taking = Taking(push.t, *words, push in unanswered, push.waited, host)
        takings[str(push.notification_id)].setdefault(sys.intern(push.token), []).append(taking)
        account.accepted += 1
    seen: set[int] = set()
    for row in rows:
        seen.add(row.id)
        taken = takings.pop(str(row.id), {})
        account.rows[f"{row.status} {row.message.partition(':')[0]}" if row.status != "SENT" else "SENT"] += 1
        account.devices += len(row.tokens)
        account.problems += [*_of_row(row, taken, written, events), *_of_pushes(row, taken)]
        for token, times in taken.items():
            _repeats(account, row.id, token, sorted(times), events)
    for first, count, at in written.batches:
        missing = [number for number in range(first, first + count) if number not in seen]
        account.problems += [Problem(Sort.WRONG, f"notification {number} is gone", at) for number in missing]
    for number, taken in takings.items():
        [at, *_] = (times[0].at for times in taken.values())
        account.problems.append(Problem(Sort.WRONG, f"a push of notification {number}, which is not there", at))
    return account


def left_over(engine: Engine) -> list[Problem]:
    """Return a problem if a worker's lease or retry is left where nothing is to be done any more."""
    with engine.connect() as connection:
        left = connection.execute(LEFT).scalar_one()
    return [Problem(Sort.STUCK, f"{left} entries are left in worker_deliveries")] if left else []


def _of_row(row: Row, taken: dict[str, list[Taking]], written: Written, events: list[tuple[Event, Excuse]]) -> list[Problem]:
    """Hold what a row says against the pushes that were taken of it, by token."""
    live = [token for token in row.tokens if not token.startswith(DEAD)]
    missed = [token for token in live if token not in taken]
    name, problems = f"notification {row.id}", []
    # One whose push went out, whose worker was then killed and whose row was then read is both sent and unwanted.
    unwanted = row.message.startswith("suppressed:") and row.is_read and row.id in written.read
    match row.status:
        case "SENT":
            if not row.is_sent or not row.has_time:
                problems.append(Problem(Sort.WRONG, f"{name} is SENT without is_sent or sent_at", row.created_at))
            if not live:
                problems.append(Problem(Sort.WRONG, f"{name} is SENT, and has no live device", row.created_at))
            elif missed and (not unwanted or missed == live):
                sentence = f"{name} is SENT, but {len(missed)} of its {len(live)} devices never got it: {row.message}"
                problems.append(Problem(Sort.LOST, sentence, row.created_at))
        case "BOUNCED":
            known = [push for times in taken.values() for push in times if not _is_lost(row.id, push, events)]
            if row.is_sent:
                problems.append(Problem(Sort.WRONG, f"{name} is BOUNCED with is_sent", row.created_at))
            if live and not unwanted:
                problems.append(Problem(Sort.WRONG, f"{name} is BOUNCED with live devices: {row.message}", row.created_at))
            elif live and known:
                sentence = f"{name} is BOUNCED, though a device got it and no result was lost: {row.message}"
                problems.append(Problem(Sort.WRONG, sentence, row.created_at))
        case "FAILED" if row.message.startswith("gave up:"):
            problems.append(Problem(Sort.LOST, f"{name} was given up: {row.message}", row.created_at))
        case _:
            problems.append(Problem(Sort.STUCK, f"{name} is still {row.status}: {row.message}", row.created_at))
    return problems


def _of_pushes(row: Row, taken: dict[str, list[Taking]]) -> Iterator[Problem]:
    """Yield what is wrong with the pushes of a row: to whom they went, what they said, under which collapse key."""
    name = f"notification {row.id}"
    for token, times in taken.items():
        if token not in row.tokens:
            yield Problem(Sort.WRONG, f"{name} was taken by {token}, which is no device of its row", times[0].at)
        elif token.startswith(DEAD):
            yield Problem(Sort.WRONG, f"{name} was taken by the dead device {token}", times[0].at)
        for taking in times:
            if taking.digest != row.digest:
                yield Problem(Sort.WRONG, f"{name} was taken by {token} with words that are not its own", taking.at)
    keys = {taking.collapse for times in taken.values() for taking in times}
    if len(keys) > 1 or "" in keys:
        yield Problem(Sort.WRONG, f"{name} was sent under other collapse keys: {', '.join(sorted(keys))}", row.created_at)


def _repeats(account: Pushes, number: int, token: str, times: list[Taking], events: list[tuple[Event, Excuse]]) -> None:
    """Count a device's further pushes, each under the fault that cut short the one before it; a fault cuts short one."""
    events = list(events)
    for before, after in pairwise(times):
        account.repeated += 1
        found = next((each for each in events if _excuses(*each, number, before, after.at)), None)
        if found:
            events.remove(found)
            account.excused[found[0].fault] += 1
        else:
            seconds = after.at - before.at
            sentence = f"notification {number} was sent again to {token} after {seconds:.1f} s, and nothing excuses it"
            account.problems.append(Problem(Sort.WRONG, sentence, before.at))


def _excuses(event: Event, excuse: Excuse, number: int, before: Taking, after: float) -> bool:
    """Return whether a fault has cut short the push that was taken `before`, so that it went out again at `after`."""
    if after - before.at > LATEST_SECONDS:
        return False
    if excuse is Excuse.KILLED:
        return any(
            after >= _free_at(at, leases[number]) - MARGIN_SECONDS
            and (_in_flight(before, event, at, leases[number]) or _on_waking(after, event))
            for at, leases in event.in_flight
            if number in leases
        )
    if excuse is Excuse.UNANSWERED:
        return _is_unanswered(before, event) and after - before.at >= SOONEST_SECONDS
    return False


def _is_lost(number: int, push: Taking, events: list[tuple[Event, Excuse]]) -> bool:
    """Return whether the workers may never have learned that a push was taken."""
    unanswered = any(excuse is Excuse.UNANSWERED and _is_unanswered(push, event) for event, excuse in events)
    return unanswered or any(
        number in leases and (_in_flight(push, event, at, leases[number]) or _on_waking(push.at, event))
        for event, excuse in events
        if excuse is Excuse.KILLED
        for at, leases in event.in_flight
    )


def _is_unanswered(push: Taking, event: Event) -> bool:
    return push.cut and event.began - ANSWER_SECONDS <= push.at <= event.ended + MARGIN_SECONDS


def _in_flight(push: Taking, event: Event, at: float, ends: float) -> bool:
    """Return whether a push came from a kill's host under a lease that it cut short; `ends` is as `_free_at` has it."""
    if push.host and event.host and push.host != event.host:
        return False
    began = at - LEASE_SECONDS if _passed_on(at, ends) else ends - LEASE_SECONDS
    return began - MARGIN_SECONDS <= push.at - push.waited <= at + MARGIN_SECONDS


def _on_waking(at: float, event: Event) -> bool:
    """Return whether a push came from a process that had been stopped before the request was out, and then went on."""
    return bool(event.woke) and event.woke - MARGIN_SECONDS <= at <= event.woke + ANSWER_SECONDS


def _free_at(at: float, ends: float) -> float:
    """Return when a row that was claimed at a kill could be claimed again: no sooner than its lease ended.

    `ends` is the end of the lease that was found then. If the database could not be asked at once, it may be another run's.
    """
    return ends - LEASE_SECONDS if _passed_on(at, ends) else ends


def _passed_on(at: float, ends: float) -> bool:
    return ends - LEASE_SECONDS > at + MARGIN_SECONDS
