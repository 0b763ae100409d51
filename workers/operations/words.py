"""Numbers as people read them: counts with their bound, durations, sizes, moments."""

from datetime import datetime


def count(number: float, most: int) -> str:
    """Return a count with thousands separators; one that reached its bound bears a plus."""
    return f"{int(number):,}{'+' if number >= most else ''}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 12 s, 5 min, 3 h, 2 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else f"{seconds:.1f} s"


def size(number: float) -> str:
    """Return bytes as people say them: 12 kB, 3.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit in {"B", "kB"} else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def moment(when: datetime | None) -> str:
    """Return a time in UTC to the second, or `never`."""
    return "never" if when is None else f"{when:%Y-%m-%d %H:%M:%S}Z"
