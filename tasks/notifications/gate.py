"""One drain's cached copy of the breakers, refreshed from MySQL before each claim, and operators' pauses, each half second."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError

from tasks.notifications.breaker import WITNESSES, BreakerState, Standing, Tally
from tasks.notifications.devices import of_lane
from tasks.notifications.outcome import Kind, Outcome
from tasks.pause import LOOK_SECONDS, of_pushes

# What Google asks for where a 429 names no time: https://firebase.google.com/docs/cloud-messaging/scale-fcm
PAUSE_SECONDS = 60

log = structlog.get_logger(__name__)

_FAILURES = {Kind.UNAVAILABLE, Kind.UNREACHABLE, Kind.UNKNOWN}

# The environment of devices that name none.
ANY = "any"

# More than any claim: no bound but the batch's own.
ANY_ROWS = 1_000_000

# How far the one message is that a half-open breaker lets pass.
Probe = Literal["granted", "in flight", "answered"]


class Gate:
    """Lets messages pass as the breakers stood when the run last asked, and counts the answers until it asks again."""

    def __init__(
        self,
        providers: Iterable[str],
        ask: Callable[[Mapping[str, Tally]], Mapping[str, Standing]],
        paused: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        """`ask` takes tallies and returns standings, as `breaker.ask` does; `paused` is as `pause.paused`."""
        self._ask = ask
        self._read_paused = paused
        self._paused: Collection[str] = ()
        self._clock_offset = 0.0
        self._tallies = {name: Tally() for name in providers}
        self._states: dict[str, BreakerState] = {}
        self._proven: set[tuple[str, str]] = set()
        self._tripped: dict[str, str] = {}
        self._tripped_before: set[str] = set()
        self._failing: set[tuple[str, int]] = set()
        self._probes: dict[str, Probe] = {}

    async def ask(self, *, beside: bool = False) -> tuple[tuple[str, ...], int]:
        """Refresh the states; return the lanes in which rows are due, and how many rows to claim at most: 0 if nothing passes.

        `beside`: other tasks go on meanwhile, and the question alone leaves the event loop's thread.
        """
        tallies = self._hand_over()
        return self._refresh(await asyncio.to_thread(self._ask, tallies) if beside else self._ask(tallies))

    def leave(self) -> None:
        """Hand in the last tallies as the run ends."""
        for tally in self._tallies.values():
            tally.leaving = True
        self._ask(self._hand_over())

    async def watch(self) -> None:
        """Look for pauses until cancelled, so that one also stops what was claimed before it."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._paused = await asyncio.to_thread(self._read_paused)
            except SQLAlchemyError as error:
                log.warning("pauses cannot be read", reason=str(getattr(error, "orig", error)))

    def _hand_over(self) -> dict[str, Tally]:
        for name, probe in self._probes.items():
            if probe == "granted":
                self._tallies[name].probed = True  # and nothing was there to probe with
        self._tripped_before = set(self._tripped)
        self._failing.clear()
        tallies, self._tallies = self._tallies, {name: Tally() for name in self._tallies}
        return tallies

    def now(self) -> float:
        """Return the database's time in Unix seconds, by this process's clock since the run last asked."""
        return time.monotonic() + self._clock_offset

    def _refresh(self, standings: Mapping[str, Standing]) -> tuple[tuple[str, ...], int]:
        self._states = states = {name: standing.state for name, standing in standings.items()}
        self._clock_offset = max((standing.now for standing in standings.values()), default=0) - time.monotonic()
        self._proven |= {(name, environment) for name, standing in standings.items() for environment in standing.proven}
        # What came back while we asked still holds.
        self._tripped = {name: why for name, why in self._tripped.items() if name not in self._tripped_before}
        # A probe that is still in flight stays this run's; its result goes into the tally after it has come.
        self._probes = {name: probe for name, probe in self._probes.items() if probe == "in flight"}
        for name, standing in standings.items():
            if standing.state is BreakerState.HALF_OPEN:
                self._probes[name] = "granted"
            self._tallies[name].reserved = standing.reserved
        due = [name for name, standing in standings.items() if standing.due and standing.state is not BreakerState.OPEN]
        most = ANY_ROWS if BreakerState.CLOSED in states.values() else int(BreakerState.HALF_OPEN in states.values())
        return ("", *due) if due else (), most

    def holds(self, provider: str) -> str | None:
        """Return why no message may pass now, None if one may; through a half-open breaker only the first may."""
        if self._paused and not of_pushes(**of_lane(provider)).isdisjoint(self._paused):
            return "an operator has paused it"
        if provider in self._tripped:
            return self._tripped[provider]
        if provider in self._probes:
            if self._probes[provider] != "granted":
                return "its breaker is being probed"
            self._probes[provider] = "in flight"
            return None
        return "its breaker is open" if self._states.get(provider) is BreakerState.OPEN else None

    def note(self, provider: str, outcome: Outcome, environment: str = ANY, *, recipient: int = 0) -> Outcome:
        """Count what came back for a recipient's device; return what it means, given what is known of the provider.

        The failures of a recipient's devices are one, and odd answers to browsers' are none: what page of a push service they
        point at may be his own choice. A credentials fault or a pause stops this run's other messages at once. That a token is
        another app's may as well be our configuration's fault until the provider has accepted something in that environment.
        """
        tally, name = self._tallies[provider], of_lane(provider)["provider"]
        if self._probes.get(provider) == "in flight":
            self._probes[provider] = "answered"
            tally.probed = True
        if outcome.kind is Kind.CREDENTIALS:
            tally.credentials = outcome.reason
            self._tripped[provider] = outcome.reason
        elif outcome.kind in _FAILURES and (outcome.kind, name) != (Kind.UNKNOWN, "webpush"):
            tally.failed += (provider, recipient) not in self._failing
            self._failing.add((provider, recipient))
            tally.failure = outcome.reason
        else:
            tally.answered += 1
        wait = outcome.retry_after or PAUSE_SECONDS
        if outcome.everyone:
            tally.pause = max(tally.pause, wait)
        elif outcome.everyone is None:
            tally.witnesses[str(recipient)[-12:]] = wait
            tally.throttled += 1
        if outcome.everyone or (len(tally.witnesses) >= WITNESSES and 2 * tally.throttled >= tally.answered):
            self._tripped[provider] = outcome.reason
        if outcome.kind is Kind.SENT:
            tally.accepted.add(environment)
            self._proven.add((provider, environment))
        if outcome.kind is Kind.FOREIGN and (provider, environment) not in self._proven:
            return outcome._replace(kind=Kind.UPSTREAM)
        return outcome
