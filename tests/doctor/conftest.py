"""What the doctor says of the stack as it is, asked check by check."""

from collections.abc import Callable

import pytest

from settings import get_settings
from workers.cli.doctor import CHECKS
from workers.doctor.report import Question, State, examine

Said = dict[str, tuple[State, str]]
Ask = Callable[..., Said]


@pytest.fixture
def ask(environment: dict[str, str]) -> Ask:
    """Return what one check finds, by what was looked at, a sentence a line; with some settings changed."""

    def of(check: str, *, offline: bool = False, only_backs_up: bool = False, seconds: float = 60, **changes: object) -> Said:
        question = Question(get_settings().model_copy(update=changes), offline, only_backs_up)
        found = list(examine(question, {check: CHECKS[check]}, seconds=seconds))
        said: Said = {}
        for finding in found:
            before = said[finding.what][1] + "\n" if finding.what in said else ""
            said[finding.what] = finding.state, before + finding.sentence
        return said

    return of
