"""Words for people: counts, durations, sizes and times in one form everywhere, and texts of strangers made harmless."""

from datetime import datetime

LONGEST_LINE = 12_000
"""Signs, of four bytes at most: the journal takes what is behind 48 KiB for a line of its own (LineMax in journald.conf(5))."""


def count(number: float, most: float = float("inf")) -> str:
    """Return a count with thousands separators; one that reached its bound bears a plus."""
    return f"{int(number):,}{'+' if number >= most else ''}"


def duration(seconds: float) -> str:
    """Return a duration in its largest unit: 0.3 s, 42 s, 5 min, 3 h, 2 d. One below zero is of a clock that was set back."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s".replace(".0", "")


def size(number: float) -> str:
    """Return bytes in their largest unit, of a thousand each: 12 kB, 3.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit in {"B", "kB"} else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def moment(when: datetime | None) -> str:
    """Return a time in UTC to the second, or `never`."""
    return "never" if when is None else f"{when:%Y-%m-%d %H:%M:%S}Z"


def did(event: str, **amounts: object) -> str:
    """Return in a line what a task did, for Flower: `drained: sent 3`. It holds no content."""
    some = ", ".join(f"{name} {amount}" for name, amount in amounts.items() if amount)
    return f"{event}: {some}" if some else "nothing to do"


def printable(text: object) -> str:
    """Return a text, cut, as a line that a terminal only shows: ESC, C1, line breaks and signs of direction become escapes."""
    shown = str(text)[:LONGEST_LINE]
    shown = shown if shown.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in shown)
    return shown[:LONGEST_LINE]
