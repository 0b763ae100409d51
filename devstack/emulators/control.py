"""The control interface under /_control/: readiness, fault rules, counts, settings and reset. Loopback only, no login.

| path | method | what |
|---|---|---|
| ready | GET | 200 when the emulator serves |
| faults | GET, POST, DELETE | the rules; add one or a list (`client.Fault`); clear all |
| faults/ID | DELETE | clear one |
| stats | GET | the counters; the log is flushed first |
| settings | GET, POST | `latency` (s, on every well-formed request), `token_lifetime` (s, bearers given out from now on) |
| revoke | POST | every bearer given out so far becomes unknown |
| reset | POST | empty the log, zero the counters, clear the faults, settings back to their defaults |
"""

from itertools import count
from typing import Any

import orjson

from devstack.emulators.answers import Answer, Provider, Request, json_answer
from devstack.emulators.counters import Counters
from devstack.emulators.faults import FaultBook, UnknownFaultError
from devstack.emulators.log import AcceptedLog
from devstack.emulators.oauth import OAuth

PREFIX = "/_control/"


class Control:
    """The knobs and dials. `latency` and `books` are read by the server at each request."""

    def __init__(self, oauth: OAuth, providers: list[Provider], log: AcceptedLog, counters: Counters) -> None:
        ids = count(1)
        self.books = {provider.name: FaultBook(provider.name, provider.faults, ids) for provider in providers}
        self.latency = 0.0
        self._oauth = oauth
        self._default_lifetime = oauth.lifetime
        self._log = log
        self._counters = counters
        self._routes = {
            ("GET", "ready"): self._ready,
            ("GET", "faults"): self._faults,
            ("POST", "faults"): self._inject,
            ("DELETE", "faults"): self._clear,
            ("GET", "stats"): self._stats,
            ("GET", "settings"): self._settings,
            ("POST", "settings"): self._set,
            ("POST", "revoke"): self._revoke,
            ("POST", "reset"): self._reset,
        }

    def answer(self, request: Request, body: bytes) -> Answer:
        self._log.flush()
        path, _, argument = request.path.removeprefix(PREFIX).partition("/")
        if request.method == "DELETE" and path == "faults" and argument.isdecimal():
            removed = [book for book in self.books.values() if book.remove(int(argument))]
            return _ok({"removed": len(removed)})
        route = self._routes.get((request.method, path))
        if route is None or argument:
            return _refusal(404, f"no {request.method} {request.path}")
        try:
            return _ok(route(orjson.loads(body) if body else None))
        except (UnknownFaultError, TypeError, ValueError) as error:
            return _refusal(400, str(error))

    def _ready(self, _: Any) -> Any:
        return {"ready": True}

    def _faults(self, _: Any) -> Any:
        return [
            {"id": rule.id, "provider": name, "outcome": rule.outcome, "token": rule.token, "hits": rule.hits}
            for name, book in self.books.items()
            for rule in book.rules.values()
        ]

    def _inject(self, body: Any) -> Any:
        faults = body if isinstance(body, list) else [body]
        return {"ids": [self._add(**fault) for fault in faults]}

    def _add(self, provider: str, kind: str, **options: Any) -> int:
        if provider not in self.books:
            raise UnknownFaultError(f"there is no provider {provider!r}; there are: {', '.join(self.books)}")
        return self.books[provider].add(kind, **options)

    def _clear(self, _: Any) -> Any:
        for book in self.books.values():
            book.clear()
        return {}

    def _stats(self, _: Any) -> Any:
        return self._counters.snapshot()

    def _settings(self, _: Any) -> Any:
        return {"latency": self.latency, "token_lifetime": self._oauth.lifetime}

    def _set(self, body: Any) -> Any:
        body = body or {}
        self.latency = float(body.get("latency", self.latency))
        self._oauth.lifetime = float(body.get("token_lifetime", self._oauth.lifetime))
        return self._settings(None)

    def _revoke(self, _: Any) -> Any:
        self._oauth.revoke()
        return {}

    def _reset(self, _: Any) -> Any:
        self._log.reset()
        self._counters.reset()
        self._set({"latency": 0, "token_lifetime": self._default_lifetime})
        return self._clear(None)


def _ok(payload: Any) -> Answer:
    return json_answer("control", 200, payload)


def _refusal(status: int, sentence: str) -> Answer:
    return json_answer("control", status, {"error": sentence})
