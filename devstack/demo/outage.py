"""The outage in the middle of the demo: the push provider is gone for three seconds, and what that costs is said."""

import time

from devstack.demo.progress import Sample
from devstack.emulators.client import Emulator, Fault

SECONDS = 3.0
# It begins when so large a share of the rows has been settled.
BEGINS_AT = 0.3


class Outage:
    """One outage of the provider: every connection to it is reset."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._rule = 0
        self._began = 0.0
        self.over = False

    def step(self, sample: Sample) -> str:
        """Begin or end the outage if it is time, and say so."""
        if self.over:
            return ""
        if not self._rule:
            if sample.unsettled > (1 - BEGINS_AT) * sum(sample.rows.values()):
                return ""
            (self._rule,), self._began = self._emulator.inject(Fault(kind="reset")), time.monotonic()
            return "The provider goes down: every connection is reset."
        seconds = time.monotonic() - self._began
        if seconds < SECONDS:
            return ""
        self.over = True
        self._emulator.clear(self._rule)
        return f"The provider is back after {seconds:.1f} s. What met nobody waits for its next try."
