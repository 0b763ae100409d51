"""What can be found: something lost, stuck or wrong, with the moment that tells which faults were at work."""

from dataclasses import dataclass
from enum import StrEnum


class Sort(StrEnum):
    """How bad it is; none of them may be."""

    LOST = "lost"
    """A push that nobody took, of a row that says it was sent or that was given up."""
    STUCK = "stuck"
    """Work that nobody does, though nothing is in its way any more."""
    WRONG = "wrong"
    """A row, a file or a repeat that must not be."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `at` is Unix time in seconds, 0 where no moment belongs to it."""

    sort: Sort
    what: str
    at: float = 0.0
