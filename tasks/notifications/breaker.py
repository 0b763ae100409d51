"""The breaker of each provider, shared by all workers in MySQL: open or closed, its probes, the provider's pauses and its rate.

`ask` is the one short transaction; `advance` is the state machine in it, pure but for the jitter of its probes.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from typing import Literal, NamedTuple

import orjson
from sqlalchemy import Connection, Engine, text

from db.transactions import transact
from tasks import outbox
from tasks.notifications.devices import DEFAULT_APP, of_lane
from tasks.pause import IN_FORCE, of_pushes

# Sustained failure: within a window, so many failures and so large a share of all answers.
WINDOW_SECONDS = 10
OPEN_AT_FAILURES = 20
OPEN_AT_SHARE = 0.8
# A quiet chat does not fail so often in a window: so many failures without an answer between them, however long they take.
OPEN_AT_IN_A_ROW = 5
# A request to slow down that does not say for whom is one device's, until so many recipients' got it within a window, and half
# of what was answered was one.
WITNESSES = 3

# The first probe after opening, and the next after one that failed. That is below the beat tick that brings a run: one message
# in five seconds is cheap, and a recovery is noticed within seconds.
FIRST_PROBE_SECONDS, NEXT_PROBE_SECONDS = 2.0, 4.0
PROBE_JITTER = (1.0, 1.2)
# A prober that dies leaves the next probe to another after this long.
PROBE_LEASE_SECONDS = 30

# Google asks for a ramp of at least a minute: https://firebase.google.com/docs/cloud-messaging/scale-fcm
RAMP_SECONDS = 60
RAMP_START = 0.05
# The bucket holds what the rate gives in this time: the beat tick that brings a waiting run back is shorter.
BURST_SECONDS = 10
# What a run that may send takes out of the bucket in advance, about a batch: else many runs would each send what only one may.
# The bucket may go into debt for it; the run's next tally gives back what it did not send.
RESERVED = 500
# Where the bucket holds so many, none is needed, and a run writes nothing before its first message.
PLENTY = 20 * RESERVED


class BreakerState(StrEnum):
    """How a provider's breaker stands for one run, until it asks again."""

    CLOSED = "closed"
    """Messages pass."""
    HALF_OPEN = "half open"
    """One message passes, the probe; how it went closes the breaker or keeps it open."""
    OPEN = "open"
    """Nothing passes: the provider fails, or asked for a pause, or its rate is used up."""


@dataclass(slots=True)
class Tally:
    """One run's count of a provider's answers since it last asked."""

    answered: int = 0
    """Messages that got an answer which shows the provider at work, whatever it said of the device."""
    failed: int = 0
    """Recipients for whom it could not take a message, or gave no answer."""
    failure: str = ""
    credentials: str = ""
    """The reason of a credentials or configuration fault, if there was one."""
    accepted: set[str] = field(default_factory=set)
    """The environments in which it took a message, each with the identity that it was sent as."""
    pause: float = 0
    """Seconds that it asked all senders to wait."""
    throttled: int = 0
    """Answers of these that ask to slow down without saying for whom."""
    witnesses: dict[str, float] = field(default_factory=dict)
    """Seconds that it asked someone to wait, by the recipient whose message it was."""
    probed: bool = False
    """The run had the probe; its result is in the other fields."""
    reserved: bool = False
    """The run has a reservation in the bucket, which this tally gives back."""
    leaving: bool = False
    """The run ends and wants no probe."""


@dataclass(slots=True)
class Breaker:
    """One provider's row in `worker_providers`. Times are Unix seconds of the database's clock."""

    opened_at: float = 0
    """When it opened, 0 while it is closed."""
    reason: str = ""
    """Why it opened, or why the provider is paused."""
    probe_at: float = 0
    recovered_at: float = 0
    window_at: float = 0
    answered: int = 0
    failed: int = 0
    paused_until: float = 0
    tokens: float = 0
    tokens_at: float = 0
    accepted: str = ""
    """The environments in which it ever took a message of the present identity: elsewhere it may be our configuration that it
    does not know a token."""
    failed_in_a_row: int = 0
    witnesses: str = ""
    """How many answers of this window ask to wait without saying whom, and some of their recipients."""
    announced: bool = False
    """The last event about it says that it is open."""


class Standing(NamedTuple):
    """How a provider stands for one run at `now`; `proven` are the environments in which it has ever taken a message.

    `due`: rows that wait for it, or for no provider in particular, are due for another attempt. `reserved`: it took a
    reservation out of the bucket.
    """

    state: BreakerState
    now: float
    proven: frozenset[str] = frozenset()
    due: bool = True
    reserved: bool = False


# In `worker_providers` these are DATETIMEs, and the others of these types.
MOMENTS = ("opened_at", "probe_at", "recovered_at", "window_at", "paused_until", "tokens_at")
OTHERS = {
    **dict.fromkeys(("answered", "failed", "failed_in_a_row", "announced"), "INT"),
    **dict.fromkeys(("reason", "accepted", "witnesses"), "VARCHAR(255)"),
    "tokens": "DOUBLE",
}

ENTER = text("INSERT IGNORE INTO worker_providers (provider, app) VALUES (:provider, :app)")
# All lanes at once, each a cell, always in the same order: no deadlock between workers. The time is that at which the row was
# got, after the wait for it. Whether rows are due is seen by idx_due, without locks.
LANE = f"CONVERT(CONCAT(provider, IF(app = '{DEFAULT_APP}', '', CONCAT('.', app))) USING ascii)"
DUE = " OR ".join(
    "EXISTS (SELECT 1 FROM worker_deliveries FORCE INDEX (idx_due)"  # noqa: S608 - constants of this module
    f" WHERE waiting_on = {lane} AND due_at <= NOW(3))"
    for lane in ("''", LANE)
)
READ = text(f"""
    SELECT JSON_ARRAY(provider, app, id, UNIX_TIMESTAMP(SYSDATE(3)) + 0e0, {DUE}, {", ".join(OTHERS)},
                      {", ".join(f"COALESCE(UNIX_TIMESTAMP({name}) + 0e0, 0)" for name in MOMENTS)}) AS breaker,
           (SELECT JSON_ARRAYAGG(what) FROM worker_pauses WHERE {IN_FORCE}) AS paused
    FROM worker_providers FORCE INDEX (idx_provider) WHERE (provider, app) IN :lanes ORDER BY provider, app FOR UPDATE
""")  # noqa: S608 - constants of this module
WRITE = text(f"""
    UPDATE worker_providers p FORCE INDEX (PRIMARY) JOIN JSON_TABLE(:rows, '$[*]' COLUMNS (id INT PATH '$.id',
      {", ".join(f"{name} {kind} PATH '$.{name}'" for name, kind in (OTHERS | dict.fromkeys(MOMENTS, "DOUBLE")).items())}
    )) AS now ON p.id = now.id
    SET {", ".join(f"p.{name} = now.{name}" for name in OTHERS)},
        {", ".join(f"p.{name} = FROM_UNIXTIME(NULLIF(now.{name}, 0))" for name in MOMENTS)}
""")  # noqa: S608 - constants of this module


def ask(engine: Engine, tallies: Mapping[str, Tally], rate: float) -> dict[str, Standing]:
    """Add a run's tallies, by lane, to the shared breakers; return how each stands now. `rate` is in messages per second."""
    return transact(engine, partial(_ask, tallies=tallies, rate=rate)) if tallies else {}


def _ask(connection: Connection, tallies: Mapping[str, Tally], rate: float) -> dict[str, Standing]:
    lanes = {tuple(of_lane(lane).values()): lane for lane in tallies}
    if len(rows := connection.execute(READ, {"lanes": [*lanes]}).all()) < len(lanes):
        connection.execute(ENTER, [of_lane(lane) for lane in tallies])
        rows = connection.execute(READ, {"lanes": [*lanes]}).all()
    standings, written = {}, []
    for row in rows:
        provider, app, id_, now, due, *values = orjson.loads(row.breaker)
        lane, breaker = lanes[provider, app], Breaker(**dict(zip((*OTHERS, *MOMENTS), values, strict=True)))
        held = not of_pushes(provider, app).isdisjoint(orjson.loads(row.paused or "[]"))
        state = advance(breaker, tallies[lane], now, rate, held=held)
        if event := news(breaker, now):
            outbox.emit(connection, event, {"provider": provider, "app": app, "reason": breaker.reason[:255]})
        closed = state is BreakerState.CLOSED
        # What time alone has changed is worked out again by the next run that has something to tell.
        told = not closed or tallies[lane] != Tally() or breaker.tokens < PLENTY or event
        if told:
            written.append({**asdict(breaker), "id": id_, "reason": breaker.reason[:255]})
        standings[lane] = Standing(state, now, frozenset(breaker.accepted.split()), bool(due), reserved=bool(told and closed))
    if written:
        connection.execute(WRITE, {"rows": orjson.dumps(written).decode()})
    return standings


def advance(breaker: Breaker, tally: Tally, now: float, rate: float, *, held: bool = False) -> BreakerState:
    """Add a run's tally to the breaker, in place; return how it stands for that run now. `rate` is in messages per second.

    `held`: an operator has paused the provider, so nothing passes, not even a probe.
    """
    if (ahead := breaker.tokens_at - now) > 0:  # the database's clock was set back: all its times go with it
        for name in MOMENTS:
            setattr(breaker, name, max(getattr(breaker, name) - ahead, 0))
    _refill(breaker, tally, now, rate)
    _count(breaker, tally, now)
    if pause := max(tally.pause, _agreed_pause(breaker, tally)):
        breaker.paused_until = max(breaker.paused_until, now + pause)
    if not breaker.opened_at:
        fault = tally.credentials or _sustained_failure(breaker, tally)
        if fault:
            breaker.opened_at, breaker.reason = now, fault
            breaker.probe_at = now + FIRST_PROBE_SECONDS * random.uniform(*PROBE_JITTER)
    elif tally.probed:
        _judge_probe(breaker, tally, now)
    return BreakerState.OPEN if held else _state(breaker, now, rate, leaving=tally.leaving)


def news(breaker: Breaker, now: float) -> Literal["breaker.opened", "breaker.closed"] | None:
    """Return which event is due, and note that it was written.

    One that flaps has opened once: only when it has stayed closed for the length of a ramp is it said to be.
    """
    if breaker.opened_at and not breaker.announced:
        breaker.announced = True
        return "breaker.opened"
    if not breaker.opened_at and breaker.announced and now - breaker.recovered_at >= RAMP_SECONDS:
        breaker.announced = False
        return "breaker.closed"
    return None


def _refill(breaker: Breaker, tally: Tally, now: float, rate: float) -> None:
    ramp = min(1.0, max(RAMP_START, (now - breaker.recovered_at) / RAMP_SECONDS))
    elapsed = now - breaker.tokens_at if breaker.tokens_at else BURST_SECONDS
    full = rate * ramp * BURST_SECONDS
    given_back = _reservation(rate) * tally.reserved
    sent = tally.answered + tally.failed
    breaker.tokens = min(full, breaker.tokens + max(0.0, elapsed) * rate * ramp + given_back) - sent
    breaker.tokens_at = now


def _count(breaker: Breaker, tally: Tally, now: float) -> None:
    if now - breaker.window_at >= WINDOW_SECONDS:
        breaker.window_at, breaker.answered, breaker.failed, breaker.witnesses = now, 0, 0, ""
    breaker.answered += tally.answered
    breaker.failed += tally.failed
    breaker.failed_in_a_row = 0 if tally.answered else breaker.failed_in_a_row + tally.failed
    if tally.accepted:
        # What other credentials proved says nothing of these.
        ours = {of.partition(":")[2] for of in tally.accepted}
        kept = {of for of in breaker.accepted.split() if of.partition(":")[2] in ours}
        breaker.accepted = " ".join(sorted(kept | tally.accepted))


def _agreed_pause(breaker: Breaker, tally: Tally) -> float:
    """Return the seconds that all are to wait because enough recipients of this window were asked to, 0 if too few were."""
    count, *before = breaker.witnesses.split() or ["0"]
    throttled, recipients = int(count) + tally.throttled, sorted({*before, *tally.witnesses})[:WITNESSES]
    breaker.witnesses = " ".join((str(throttled), *recipients)) if throttled else ""
    agreed = len(recipients) == WITNESSES and 2 * throttled >= breaker.answered
    return min(tally.witnesses.values(), default=0) if agreed else 0


def _sustained_failure(breaker: Breaker, tally: Tally) -> str:
    most = breaker.failed >= max(OPEN_AT_FAILURES, OPEN_AT_SHARE * (breaker.failed + breaker.answered))
    in_a_row = breaker.failed_in_a_row >= OPEN_AT_IN_A_ROW and not breaker.answered
    return tally.failure if most or in_a_row else ""


def _judge_probe(breaker: Breaker, tally: Tally, now: float) -> None:
    if tally.credentials or tally.failed:
        breaker.reason = tally.credentials or tally.failure
        breaker.probe_at = now + NEXT_PROBE_SECONDS * random.uniform(*PROBE_JITTER)
    elif tally.answered:
        breaker.opened_at, breaker.reason = 0, ""
        breaker.recovered_at, breaker.tokens = now, 0
        breaker.window_at, breaker.answered, breaker.failed = now, 0, 0
    else:
        breaker.probe_at = now  # nothing was there to probe with: the next run tries again


def _reservation(rate: float) -> float:
    return min(RESERVED, rate * BURST_SECONDS)


def _state(breaker: Breaker, now: float, rate: float, *, leaving: bool) -> BreakerState:
    if now < breaker.paused_until:
        return BreakerState.OPEN
    if breaker.opened_at:
        if now < breaker.probe_at or leaving:
            return BreakerState.OPEN
        breaker.probe_at = now + PROBE_LEASE_SECONDS
        return BreakerState.HALF_OPEN
    if breaker.tokens > 0 or breaker.tokens_at == breaker.recovered_at:
        breaker.tokens -= 0 if leaving else _reservation(rate)
        return BreakerState.CLOSED
    return BreakerState.OPEN
