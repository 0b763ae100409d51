"""What was asked of the emulator and how it answered: counts since the start or the last reset."""

import time
from typing import Any

_SERIES_SECONDS = 4 * 3600


class Counters:
    """Requests by provider: outcomes, requests in each second, the most in flight at once."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.reset()

    def reset(self) -> None:
        self._since = time.time()
        self._outcomes: dict[str, dict[str, int]] = {}
        self._per_second: dict[str, dict[int, int]] = {}
        self._peak = self.in_flight
        self.resets: list[tuple[str, float]] = []
        """(connection, Unix time in seconds)"""

    def begin(self, provider: str, now: float) -> None:
        self.in_flight += 1
        if self.in_flight > self._peak:
            self._peak = self.in_flight
        second = int(now)
        try:
            self._per_second[provider][second] += 1
        except KeyError:
            self._open_second(provider, second)

    def end(self, provider: str, outcome: str) -> None:
        self.in_flight -= 1
        outcomes = self._outcomes.setdefault(provider, {})
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        return {
            "since": self._since,
            "in_flight": self.in_flight,
            "peak_in_flight": self._peak,
            "outcomes": self._outcomes,
            "resets": self.resets,
            "per_second": {provider: list(series.items()) for provider, series in self._per_second.items()},
        }

    def _open_second(self, provider: str, second: int) -> None:
        series = self._per_second.setdefault(provider, {})
        series[second] = 1
        if len(series) > _SERIES_SECONDS:
            del series[next(iter(series))]
