"""The outcome for one device: the classes that every provider translates its answers into."""

from enum import StrEnum
from typing import NamedTuple

from tasks.words import printable


class Kind(StrEnum):
    """The meaning of an answer for the device, whoever gave it."""

    SENT = "sent"
    """The provider accepted the message."""
    DEAD = "dead"
    """The token will never work again; the only class that prunes a device."""
    FOREIGN = "foreign"
    """The token belongs to another project, app or key, or else our configuration does: never a prune, and final for the row
    only once the provider has ever accepted a message of ours (gate.py); until then it is UPSTREAM."""
    REFUSED = "refused"
    """Our payload is at fault and would be refused again; the device is fine."""
    UNAVAILABLE = "unavailable"
    """The provider could not take it now."""
    THROTTLED = "throttled"
    """The provider asks to slow down."""
    UNREACHABLE = "unreachable"
    """No answer: a timeout, a reset, a refused connection. It may have been accepted all the same."""
    UNKNOWN = "unknown"
    """An answer that no table knows: never a success, never a prune."""
    CREDENTIALS = "credentials"
    """Our credentials or configuration: opens the provider's breaker; no attempt of the row, no device's fault."""
    UPSTREAM = "upstream"
    """Credentials that the provider itself holds for a part of its devices (FCM's APNs key): uses nothing up, no breaker."""
    UNCONFIGURED = "unconfigured"
    """This worker has no credentials for the provider; another host's may, or this one's soon: no attempt."""
    HELD = "held"
    """Not tried: the provider's breaker is open, it asked for a pause, or the worker was asked to stop."""


FINAL = frozenset({Kind.SENT, Kind.DEAD, Kind.FOREIGN, Kind.REFUSED})


class Outcome(NamedTuple):
    """The answer for one device: `reason` is for people and never holds a token or content; of SENT it is the message's id.

    `retry_after` is in seconds. `everyone` says whether a request to slow down is meant for all senders or for one device; None
    where it does not say.
    """

    kind: Kind
    reason: str = ""
    retry_after: float | None = None
    everyone: bool | None = False


LONGEST_ID = 200


def provider_words(text: object, most: int = 40) -> str:
    """Return words of a provider's for a reason: one line, cut, without signs that a terminal obeys."""
    return printable(str(text)[:most])[:most]
