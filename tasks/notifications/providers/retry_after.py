"""The Retry-After header, in seconds or as a date (RFC 9110, 10.2.3)."""

import time
from datetime import UTC
from email.utils import parsedate_to_datetime

# A provider that asks for more is taken at its word only this far: a row's life is 24 h.
MOST_SECONDS = 6 * 3600


def seconds(header: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for, None where it is missing or unreadable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), MOST_SECONDS))
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:  # the two obsolete forms; all are in GMT
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, date.timestamp() - time.time()), float(MOST_SECONDS))
