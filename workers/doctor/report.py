"""How checks are run: all at once, each with a deadline, and none able to hide the findings of the others."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from settings import Settings

State = Literal["OK", "WRONG", "not configured", "not tried"]
# The longest sums up a check's own deadlines: clamd looks at its largest file meanwhile.
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and for WRONG how to mend it."""

    what: str
    state: State
    sentence: str


@dataclass(frozen=True, slots=True)
class Question:
    """What the doctor is asked."""

    settings: Settings
    offline: bool = False
    """Leave out what would call a provider."""
    only_backs_up: bool = False
    """This is the environment of the backups process alone, whose account in the database is another."""


Check = Callable[[Question], Iterable[Finding]]


def ok(what: str, sentence: str) -> Finding:
    return Finding(what, "OK", sentence)


def wrong(what: str, sentence: str) -> Finding:
    return Finding(what, "WRONG", sentence)


def not_configured(what: str, sentence: str) -> Finding:
    return Finding(what, "not configured", sentence)


def not_tried(what: str, sentence: str) -> Finding:
    return Finding(what, "not tried", sentence)


@dataclass(slots=True)
class _Run:
    """One check in a thread of its own: one that hangs is left behind, and ends with the process."""

    what: str
    check: Check
    findings: list[Finding] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def start(self, question: Question) -> None:
        threading.Thread(target=self._work, args=(question,), name=f"doctor-{self.what}", daemon=True).start()

    def _work(self, question: Question) -> None:
        try:
            for finding in self.check(question):
                self.findings.append(finding)
        except Exception as error:  # noqa: BLE001 - what no check foresaw is a finding too, and must not hide the others
            text = f"the check itself failed, with {type(error).__name__}: {_first_line(error)}; please report it"
            self.findings.append(wrong(self.what, text))
        self.done.set()


def examine(question: Question, checks: Mapping[str, Check], *, seconds: float = DEADLINE_SECONDS) -> Iterator[Finding]:
    """Yield what the checks find, in their order. One that takes longer than `seconds` gets a line that says so."""
    runs = [_Run(what, check) for what, check in checks.items()]
    for run in runs:
        run.start(question)
    deadline = time.monotonic() + seconds
    for run in runs:
        in_time = run.done.wait(max(0.0, deadline - time.monotonic()))
        yield from list(run.findings)
        if not in_time:
            yield wrong(run.what, f"no answer within {seconds:g} s: what it asks is reachable, but hangs")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]
