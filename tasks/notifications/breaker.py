"""Whether a provider may be used now: the breaker, the pause it asked for and the rate, as one small state machine.

Pure: `advance` takes the shared state, what one run has seen since it last asked, and the time. `outage` keeps the state in
the database.
"""

import random
from dataclasses import dataclass
from enum import StrEnum

# Sustained failure: within a window, so many failures and so large a share of all answers.
WINDOW_SECONDS = 10
OPEN_AT_FAILURES = 20
OPEN_AT_SHARE = 0.8

# The first probe after opening, then twice as long each time one fails. The slowest is below the beat tick that brings a run:
# one message in five seconds is cheap, and a recovery is noticed within seconds.
FIRST_PROBE_SECONDS = 2.0
SLOWEST_PROBE_SECONDS = 4.0
# A prober that dies leaves the next probe to another after this long.
PROBE_LEASE_SECONDS = 30

# Google asks for a ramp of at least a minute: https://firebase.google.com/docs/cloud-messaging/scale-fcm
RAMP_SECONDS = 60
RAMP_START = 0.05
# The bucket holds what the rate gives in this time: the beat tick that brings a waiting run back is shorter.
BURST_SECONDS = 10
# What an admission takes out of the bucket in advance, so that many runs do not all send by what only one may: about a batch.
# The bucket may go into debt for it; the run's next report gives back what it did not send.
RESERVED = 500


class Admission(StrEnum):
    """What a run may do with a provider until it asks again."""

    OPEN = "open"
    """Send freely."""
    PROBE = "probe"
    """Send one message and report how it went."""
    HELD = "held"
    """Send nothing; rows wait without burning attempts."""


@dataclass(slots=True)
class Report:
    """What one run saw of a provider since it last asked."""

    answered: int = 0
    """Messages that got an answer which shows the provider at work, whatever it said of the device."""
    failed: int = 0
    """Messages that it could not take, or gave no answer to."""
    failure: str = ""
    """The reason of the last failure."""
    credentials: str = ""
    """The reason of a credentials or configuration fault, if there was one."""
    pause: float = 0
    """Seconds that it asked all senders to wait."""
    probed: bool = False
    """The run held the probe; its result is in the other fields."""

    admitted: bool = False
    """Its last admission took a reservation out of the bucket, which this report gives back."""
    leaving: bool = False
    """The run ends and wants no probe."""

    @property
    def sent(self) -> int:
        """Messages that count against the rate."""
        return self.answered + self.failed


@dataclass(slots=True)
class Health:
    """The state of one provider that all workers share. Times are Unix seconds of the database's clock."""

    opened_at: float | None = None
    """When the breaker opened, None while it is closed."""
    reason: str = ""
    """Why it opened, or why the provider is paused."""
    probe_at: float = 0
    probes: int = 0
    recovered_at: float = 0
    window_at: float = 0
    answered: int = 0
    failed: int = 0
    paused_until: float = 0
    tokens: float = 0
    tokens_at: float = 0


def advance(health: Health, report: Report, now: float, rate: float) -> Admission:
    """Enter a run's report into the shared state, in place, and return what the run may do next. `rate` is messages/s."""
    _refill(health, report, now, rate)
    _count(health, report, now)
    if report.pause:
        health.paused_until = max(health.paused_until, now + report.pause)
    if health.opened_at is None:
        fault = report.credentials or _sustained_failure(health, report)
        if fault:
            _open(health, fault, now)
    elif report.probed:
        _judge_probe(health, report, now)
    return _admission(health, now, rate, leaving=report.leaving)


def _refill(health: Health, report: Report, now: float, rate: float) -> None:
    ramp = min(1.0, max(RAMP_START, (now - health.recovered_at) / RAMP_SECONDS))
    elapsed = now - health.tokens_at if health.tokens_at else BURST_SECONDS
    full = rate * ramp * BURST_SECONDS
    reservation = _reservation(rate)
    health.tokens = min(full, health.tokens + max(0.0, elapsed) * rate * ramp + reservation * report.admitted) - report.sent
    health.tokens_at = now


def _count(health: Health, report: Report, now: float) -> None:
    if now - health.window_at >= WINDOW_SECONDS:
        health.window_at, health.answered, health.failed = now, 0, 0
    health.answered += report.answered
    health.failed += report.failed


def _sustained_failure(health: Health, report: Report) -> str:
    enough = health.failed >= OPEN_AT_FAILURES
    return report.failure if enough and health.failed >= OPEN_AT_SHARE * (health.failed + health.answered) else ""


def _open(health: Health, reason: str, now: float) -> None:
    health.opened_at, health.reason, health.probes = now, reason, 0
    health.probe_at = now + _probe_delay(health)


def _judge_probe(health: Health, report: Report, now: float) -> None:
    if report.credentials or report.failed:
        health.probes += 1
        health.reason = report.credentials or report.failure
        health.probe_at = now + _probe_delay(health)
    elif report.answered:
        health.opened_at, health.reason, health.probes = None, "", 0
        health.recovered_at, health.tokens = now, 0
        health.window_at, health.answered, health.failed = now, 0, 0
    else:
        health.probe_at = now  # nothing was there to probe with: the next run tries again


def _probe_delay(health: Health) -> float:
    return min(SLOWEST_PROBE_SECONDS, FIRST_PROBE_SECONDS * 2.0 ** min(health.probes, 10)) * random.uniform(1.0, 1.2)


def _reservation(rate: float) -> float:
    return min(RESERVED, rate * BURST_SECONDS)


def _admission(health: Health, now: float, rate: float, *, leaving: bool) -> Admission:
    if now < health.paused_until:
        return Admission.HELD
    if health.opened_at is not None:
        if now < health.probe_at or leaving:
            return Admission.HELD
        health.probe_at = now + PROBE_LEASE_SECONDS
        return Admission.PROBE
    if health.tokens > 0 or health.tokens_at == health.recovered_at:
        health.tokens -= 0 if leaving else _reservation(rate)
        return Admission.OPEN
    return Admission.HELD
