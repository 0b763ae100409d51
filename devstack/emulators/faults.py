"""Injected faults: rules that hit requests by device token, number of attempts and chance."""

import time
from itertools import count
from random import Random
from typing import Any

from devstack.emulators.answers import SINCE, Answer

_SINCE_JSON = f'"{SINCE}"'.encode()


class UnknownFaultError(ValueError):
    """The rule names a provider or a kind that does not exist; the text lists those that do."""


class Rule:
    """One injected fault, live until it is cleared; `client.Fault` explains its options."""

    def __init__(
        self,
        answer: Answer,
        rule_id: int,
        *,
        token: str = "*",  # noqa: S107 - a pattern
        times: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
        latency: float = 0.0,
        retry_after: int | None = None,
    ) -> None:
        headers = [] if retry_after is None else [("retry-after", str(retry_after))]
        body = answer.body.replace(_SINCE_JSON, b"%d" % (time.time() * 1000))
        self.answer = answer._replace(headers=[*answer.headers, *headers], body=body)
        self.id = rule_id
        self.hits = 0
        self.token = token
        self.latency = latency
        self._times = times
        self._probability = probability
        self._seed = seed
        self._attempts: dict[str, int] | None = {} if times is not None or probability < 1 else None

    def strikes(self, token: str) -> bool:
        """Count an attempt on a token, and return whether the rule hits it."""
        if not (token.startswith(self.token[:-1]) if self.token.endswith("*") else token == self.token):
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


class FaultBook:
    """The rules of one provider, the newest first: that one wins."""

    def __init__(self, provider: str, kinds: dict[str, Answer], ids: "count[int]") -> None:
        self._provider = provider
        self._kinds = kinds
        self._ids = ids
        self.rules: list[Rule] = []

    def add(self, kind: str, **options: Any) -> int:
        """Add a rule of this kind, with the options of `Rule`, and return its id. Raise UnknownFaultError."""
        if kind not in self._kinds:
            known = ", ".join(sorted(self._kinds))
            raise UnknownFaultError(f"{self._provider} has no fault {kind!r}; it has: {known}")
        rule = Rule(self._kinds[kind], next(self._ids), **options)
        self.rules.insert(0, rule)
        return rule.id

    def remove(self, rule_id: int | None = None) -> None:
        """Remove the rule of this id, or every rule."""
        self.rules = [rule for rule in self.rules if rule_id not in (None, rule.id)]

    def match(self, token: str) -> Rule | None:
        """Return the newest rule that hits this attempt on a device token, or None."""
        return next((rule for rule in self.rules if rule.strikes(token)), None)
