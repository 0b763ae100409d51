"""Which injected fault, if any, meets a request: rules by token, time window, number of attempts and chance.

A rule that is injected later wins over an earlier one. Rules are indexed by how their glob is written, so that tens of
thousands of exact tokens or a few prefixes cost the request one dictionary look-up each; no rule costs nothing.
"""

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from fnmatch import translate
from itertools import count
from random import Random
from typing import Any

from devstack.emulators.answers import SINCE, Answer

_SINCE_JSON = f'"{SINCE}"'.encode()
_GLOB_CHARACTERS = frozenset("*?[")


class UnknownFaultError(ValueError):
    """The rule names a provider or a kind that does not exist; the text lists those that do."""


class Rule:
    """One injected fault, live until its window ends or it is cleared. Times are seconds; the window counts from `now`."""

    def __init__(
        self,
        answer: Answer,
        now: float,
        *,
        token: str = "*",  # noqa: S107 - a glob
        start: float = 0.0,
        end: float | None = None,
        times: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
        latency: float = 0.0,
        retry_after: int | None = None,
        retry_after_date: bool = False,
        since: float | None = None,
    ) -> None:
        gone_since = int((time.time() if since is None else since) * 1000)
        self.id = 0
        self.hits = 0
        self.token = token
        self.latency = latency
        self._answer = answer._replace(body=answer.body.replace(_SINCE_JSON, str(gone_since).encode()))
        self._starts = now + start
        self._ends = None if end is None else now + end
        self._times = times
        self._probability = probability
        self._seed = seed
        self._retry_after = retry_after
        self._retry_after_date = retry_after_date
        self._attempts: dict[str, int] | None = {} if times is not None or probability < 1 else None

    @property
    def outcome(self) -> str:
        return self._answer.outcome

    def strikes(self, token: str, now: float) -> bool:
        """Given an attempt on a matching token, return whether the rule hits it; count the attempt."""
        if now < self._starts or (self._ends is not None and now >= self._ends):
            return False
        if self._attempts is not None:
            attempt = self._attempts.get(token, 0)
            self._attempts[token] = attempt + 1
            if self._times is not None and attempt >= self._times:
                return False
            # Drawn from the attempt, not from a stream, so that concurrency cannot change who is hit.
            if self._probability < 1 and Random(f"{self._seed}:{token}:{attempt}").random() >= self._probability:
                return False
        self.hits += 1
        return True

    def answer(self) -> Answer:
        """Return the answer as of now: a Retry-After date is reckoned when it is sent."""
        if self._retry_after is None:
            return self._answer
        date = formatdate(time.time() + self._retry_after, usegmt=True)
        value = date if self._retry_after_date else str(self._retry_after)
        return self._answer._replace(headers=[*self._answer.headers, ("retry-after", value)])


class FaultBook:
    """The rules of one provider."""

    def __init__(
        self, provider: str, kinds: dict[str, Answer], ids: "count[int]", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._kinds = kinds
        self._ids = ids
        self.clear()

    def clear(self) -> None:
        self.rules: dict[int, Rule] = {}
        self._exact: dict[str, list[Rule]] = {}
        self._prefixes: dict[int, dict[str, list[Rule]]] = {}
        self._globs: list[tuple[re.Pattern[str], Rule]] = []

    def add(self, kind: str, **options: Any) -> int:
        """Given a kind of fault and the options of `Rule`, add the rule and return its id. Raise UnknownFaultError."""
        if kind not in self._kinds:
            known = ", ".join(sorted(self._kinds))
            raise UnknownFaultError(f"{self._provider} has no fault {kind!r}; it has: {known}")
        rule = Rule(self._kinds[kind], self._clock(), **options)
        rule.id = next(self._ids)
        self.rules[rule.id] = rule
        self._index(rule)
        return rule.id

    def remove(self, rule_id: int) -> bool:
        """Given a rule's id, forget the rule and return whether it was there."""
        if self.rules.pop(rule_id, None) is None:
            return False
        kept = self.rules
        self.clear()
        self.rules = kept
        for rule in kept.values():
            self._index(rule)
        return True

    def match(self, token: str) -> Rule | None:
        """Given a device token, return the newest rule that hits this attempt, or None."""
        now = self._clock()
        candidates = [
            *self._exact.get(token, ()),
            *(rule for length, by_prefix in self._prefixes.items() for rule in by_prefix.get(token[:length], ())),
            *(rule for pattern, rule in self._globs if pattern.match(token)),
        ]
        candidates.sort(key=lambda rule: rule.id, reverse=True)
        return next((rule for rule in candidates if rule.strikes(token, now)), None)

    def _index(self, rule: Rule) -> None:
        head, last = rule.token[:-1], rule.token[-1:]
        if _GLOB_CHARACTERS.isdisjoint(rule.token):
            self._exact.setdefault(rule.token, []).append(rule)
        elif last == "*" and _GLOB_CHARACTERS.isdisjoint(head):
            self._prefixes.setdefault(len(head), {}).setdefault(head, []).append(rule)
        else:
            self._globs.append((re.compile(translate(rule.token)), rule))
