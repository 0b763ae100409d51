"""Ask the questions beside each other: one that fails hides no other's answer."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from settings import ConfigurationError, Settings
from tasks.deadline import within
from tasks.jobs import QUEUES

PROCESSES = (*QUEUES, "beat", "gateway", "flower")
"""The Procfile's."""

State = Literal["OK", "RISK", "WRONG", "not configured", "not tried"]
Answer = tuple[State, str]
"""A sentence about a dependency; for WRONG it says how to mend it."""


@dataclass(frozen=True, slots=True)
class Host:
    """The environment that is examined, and the processes that are to run in it."""

    settings: Settings
    processes: frozenset[str] = frozenset(PROCESSES)
    offline: bool = False
    """Leave out what would call a push provider."""


class Question(NamedTuple):
    """A dependency, the function that looks at it, and the processes that depend on it.

    `ask` may end with a ConfigurationError, whose sentence is an answer too. It is not called where the setting `needs` is
    not set, with the consequence `unset`.
    """

    what: str
    ask: Callable[[Host], Iterable[Answer]]
    processes: tuple[str, ...] = PROCESSES
    needs: str = "celery_broker_url"
    unset: str = ""


class Finding(NamedTuple):
    """One answer, beside what it is about."""

    what: str
    state: State
    sentence: str


SECONDS = 60.0
OVERDUE: list[Answer] = [("WRONG", "no answer to the end within a minute; see what answers there, or a proxy in between")]


def ok(sentence: str) -> Answer:
    return "OK", sentence


def wrong(sentence: str) -> Answer:
    return "WRONG", sentence


def examine(host: Host, questions: Iterable[Question]) -> Iterator[Finding]:
    """Yield the answers that concern the host's processes, in order; of a dependency at fault, its faults alone."""
    asked = [question for question in questions if host.processes.intersection(question.processes)]
    with ThreadPoolExecutor(len(asked)) as threads:
        answers = threads.map(lambda question: within(SECONDS, partial(_ask, host, question), OVERDUE), asked)
        for question, found in zip(asked, answers, strict=True):
            faults = [answer for answer in found if answer[0] == "WRONG"]
            yield from (Finding(question.what, *answer) for answer in faults or found)


def _ask(host: Host, question: Question) -> list[Answer]:
    if getattr(host.settings, question.needs) is None:
        return [("not configured", f"{question.needs.upper()} is not set: {question.unset}")]
    answers: list[Answer] = []
    try:
        for answer in question.ask(host):
            answers.append(answer)
    except ConfigurationError as error:
        answers.append(wrong(str(error)))
    except Exception as error:  # noqa: BLE001 - what no question foresaw must not hide the answers to others
        first = (str(error).splitlines() or [""])[0][:200]
        answers.append(wrong(f"the doctor itself failed, with {type(error).__name__}: {first}; please report it"))
    return answers
