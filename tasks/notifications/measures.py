"""What delivery counts for monitoring, with labels of few values: a provider's own words are cut where they begin to vary."""

import re
from functools import lru_cache

from tasks import counters
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers import PROVIDERS

LONGEST_REASON = 48
# Field names, ports, key ids and the like stand in brackets, behind a colon or after a quote.
VARIES = re.compile(r"""\s*[(:'"\[].*""", re.DOTALL)


def sent(provider: str, outcome: Outcome, seconds: float) -> None:
    """Count one message and how long its answer took."""
    name = provider if provider in PROVIDERS else "other"
    counters.add(counters.DELIVERIES, name, outcome.kind.value, "" if outcome.kind is Kind.SENT else reason(outcome.reason))
    counters.observe(counters.SEND_SECONDS, name, seconds=seconds)


@lru_cache(maxsize=512)
def reason(text: str) -> str:
    """Return the part of a reason that is the same for all devices: `fcm 404 NOT_FOUND UNREGISTERED`."""
    return re.sub(r"\d{4,}", "#", VARIES.sub("", text))[:LONGEST_REASON]
