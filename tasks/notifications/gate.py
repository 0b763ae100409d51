"""What one run knows of the providers' health between two looks at the shared state."""

from collections.abc import Callable, Iterable, Mapping

from tasks.notifications.health import Admission, Report
from tasks.notifications.outcome import Kind, Outcome

_FAILURES = {Kind.UNAVAILABLE, Kind.UNREACHABLE, Kind.UNKNOWN, Kind.UPSTREAM}


class Gate:
    """Admits messages by the last answer, and gathers what comes back for the next question."""

    def __init__(self, providers: Iterable[str], ask: Callable[[Mapping[str, Report]], Mapping[str, Admission]]) -> None:
        """`ask` hands reports in and returns the admissions, as `outage.admit` does."""
        self._ask = ask
        self._reports = {name: Report() for name in providers}
        self._admissions: dict[str, Admission] = {}
        self._shut: dict[str, str] = {}
        self._probes: dict[str, int] = {}

    def ask(self) -> tuple[tuple[str, ...], int]:
        """Hand in what was seen; return the providers that may be used now and how many rows to claim at most."""
        reports, self._reports = self._reports, {name: Report() for name in self._reports}
        self._admissions = dict(self._ask(reports))
        self._shut = {}
        admitted = tuple(name for name, admission in self._admissions.items() if admission is not Admission.HELD)
        self._probes = {name: 1 for name in admitted if self._admissions[name] is Admission.PROBE}
        for name in self._probes:
            self._reports[name].probed = True
        freely = len(self._probes) < len(admitted)
        return admitted, 1_000_000 if freely else 1

    def holds(self, provider: str) -> str | None:
        """Return why no message may be sent now, None if one may; while a breaker is probed, one."""
        if provider in self._shut:
            return self._shut[provider]
        if self._admissions.get(provider) is Admission.HELD:
            return "its breaker is open"
        if provider in self._probes:
            self._probes[provider] -= 1
            return None if self._probes[provider] >= 0 else "its breaker is being probed"
        return None

    def note(self, provider: str, outcome: Outcome) -> None:
        """Take in what came back. A credentials fault or a pause holds this run's other messages at once."""
        report = self._reports[provider]
        if outcome.kind is Kind.CREDENTIALS:
            report.credentials = outcome.reason
            self._shut[provider] = outcome.reason
        elif outcome.kind in _FAILURES:
            report.failed += 1
            report.failure = outcome.reason
        else:
            report.answered += 1
        if outcome.everyone and outcome.retry_after:
            report.pause = max(report.pause, outcome.retry_after)
            self._shut[provider] = outcome.reason
