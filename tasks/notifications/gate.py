"""What one run knows of the providers' health between two looks at the shared state."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from enum import Enum

from tasks.notifications.breaker import Admission, Report
from tasks.notifications.outcome import Kind, Outcome

# What Google asks for where a 429 names no time: https://firebase.google.com/docs/cloud-messaging/scale-fcm
PAUSE_SECONDS = 60

_FAILURES = {Kind.UNAVAILABLE, Kind.UNREACHABLE, Kind.UNKNOWN}


# More than any claim: no bound but the batch's own.
ANY_ROWS = 1_000_000


class Probe(Enum):
    """How far the one message is that may be sent through an open breaker."""

    GRANTED = "granted"
    IN_FLIGHT = "in flight"
    ANSWERED = "answered"


class Gate:
    """Admits messages by the last answer, and gathers what comes back for the next question."""

    def __init__(self, providers: Iterable[str], ask: Callable[[Mapping[str, Report]], Mapping[str, Admission]]) -> None:
        """`ask` hands reports in and returns the admissions, as `outage.admit` does."""
        self._ask = ask
        self._reports = {name: Report() for name in providers}
        self._admissions: dict[str, Admission] = {}
        self._shut: dict[str, str] = {}
        self._shut_before: set[str] = set()
        self._probes: dict[str, Probe] = {}

    def ask(self) -> tuple[tuple[str, ...], int]:
        """Hand in what was seen; return the providers that may be used now and how many rows to claim at most."""
        return self._admit(self._ask(self._hand_over()))

    async def ask_aside(self) -> tuple[tuple[str, ...], int]:
        """Do what `ask` does while other tasks go on: only the question itself leaves the event loop's thread."""
        return self._admit(await asyncio.to_thread(self._ask, self._hand_over()))

    def leave(self) -> None:
        """Hand in what was seen as the run ends; no admission is asked for."""
        for report in self._reports.values():
            report.leaving = True
        self._ask(self._hand_over())

    def _hand_over(self) -> dict[str, Report]:
        for name, probe in self._probes.items():
            if probe is Probe.GRANTED:
                self._reports[name].probed = True  # and nothing was there to probe with
        self._shut_before = set(self._shut)
        reports, self._reports = self._reports, {name: Report() for name in self._reports}
        return reports

    def _admit(self, admissions: Mapping[str, Admission]) -> tuple[tuple[str, ...], int]:
        self._admissions = dict(admissions)
        # What came back while we asked still holds.
        self._shut = {name: why for name, why in self._shut.items() if name not in self._shut_before}
        # A probe that is still in flight stays this run's; its result goes with the report after it has come.
        self._probes = {name: probe for name, probe in self._probes.items() if probe is Probe.IN_FLIGHT}
        for name, admission in admissions.items():
            if admission is Admission.PROBE:
                self._probes[name] = Probe.GRANTED
            elif admission is Admission.OPEN:
                self._reports[name].admitted = True
        admitted = tuple(name for name, admission in admissions.items() if admission is not Admission.HELD)
        freely = any(admissions[name] is Admission.OPEN for name in admitted)
        return admitted, ANY_ROWS if freely else 1

    def holds(self, provider: str) -> str | None:
        """Return why no message may be sent now, None if one may; while a breaker is probed, one."""
        if provider in self._shut:
            return self._shut[provider]
        if provider in self._probes:
            if self._probes[provider] is not Probe.GRANTED:
                return "its breaker is being probed"
            self._probes[provider] = Probe.IN_FLIGHT
            return None
        return "its breaker is open" if self._admissions.get(provider) is Admission.HELD else None

    def note(self, provider: str, outcome: Outcome) -> None:
        """Take in what came back. A credentials fault or a pause holds this run's other messages at once."""
        report = self._reports[provider]
        if self._probes.get(provider) is Probe.IN_FLIGHT:
            self._probes[provider] = Probe.ANSWERED
            report.probed = True
        if outcome.kind is Kind.CREDENTIALS:
            report.credentials = outcome.reason
            self._shut[provider] = outcome.reason
        elif outcome.kind in _FAILURES:
            report.failed += 1
            report.failure = outcome.reason
        else:
            report.answered += 1
        if outcome.everyone:
            report.pause = max(report.pause, outcome.retry_after or PAUSE_SECONDS)
            self._shut[provider] = outcome.reason
