"""Counts of the emulator's requests and answers since the start or the last reset."""

from typing import Any


class Counters:
    """Requests by provider: their outcomes, the requests of each second, and those in flight now."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        self._outcomes: dict[str, dict[str, int]] = {}
        self._per_second: dict[str, dict[int, int]] = {}
        self.resets: list[tuple[str, float]] = []
        """The connections that were reset on purpose, each with its Unix time in seconds."""

    def begin(self, provider: str, now: float) -> None:
        self.in_flight += 1
        series, second = self._per_second.setdefault(provider, {}), int(now)
        series[second] = series.get(second, 0) + 1

    def end(self, provider: str, outcome: str) -> None:
        self.in_flight -= 1
        outcomes = self._outcomes.setdefault(provider, {})
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        return {
            "in_flight": self.in_flight,
            "outcomes": self._outcomes,
            "resets": self.resets,
            "per_second": {provider: list(series.items()) for provider, series in self._per_second.items()},
        }
