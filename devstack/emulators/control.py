"""The control interface under /_control/: readiness, fault rules, counts, settings and reset. Loopback only, no login.

| path | method | what |
|---|---|---|
| ready | GET | 200 when the emulator serves; the log is flushed |
| faults | GET, POST, DELETE | the rules; add a list of them (`client.Fault`); clear all |
| faults/ID | DELETE | clear one |
| stats | GET | the counters; the log is flushed |
| settings | POST | `latency` (s, on every well-formed request), `token_lifetime` (s, bearers given out from now on) |
| offline | POST | `token`: its phone is offline from now on |
| online | POST | `token`: its phone is back; what it shows of what was sent meanwhile |
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
from devstack.emulators.oauth import DEFAULT_LIFETIME_SECONDS, OAuth
from devstack.emulators.phones import Phone

PREFIX = "/_control/"


class Control:
    """The emulator's faults and settings. The server reads `latency`, `books` and `offline` at each request."""

    def __init__(self, oauth: OAuth, providers: list[Provider], log: AcceptedLog, counters: Counters) -> None:
        ids = count(1)
        self.books = {provider.name: FaultBook(provider.name, provider.faults, ids) for provider in providers}
        self.latency = 0.0
        self.offline: dict[str, Phone] = {}
        self._oauth = oauth
        self._log = log
        self._counters = counters

    def answer(self, request: Request, body: bytes) -> Answer:
        self._log.flush()
        path, _, argument = request.path.removeprefix(PREFIX).partition("/")
        try:
            done = self._do(request.method, path, argument, orjson.loads(body) if body else None)
        except (UnknownFaultError, TypeError, ValueError) as error:
            return _refusal(400, str(error))
        return _refusal(404, f"no {request.method} {request.path}") if done is None else json_answer("control", 200, done)

    def _do(self, method: str, path: str, argument: str, body: Any) -> Any:
        """Carry out a command and return what it answers, or None if there is no such command."""
        match method, path:
            case "GET", "ready":
                return {}
            case "GET", "stats":
                return self._counters.snapshot()
            case "GET", "faults":
                return [{"id": rule.id, "hits": rule.hits} for book in self.books.values() for rule in book.rules]
            case "POST", "faults":
                return {"ids": [self._add(**fault) for fault in body]}
            case "DELETE", "faults":
                for book in self.books.values():
                    book.remove(int(argument) if argument else None)
                return {}
            case "POST", "settings":
                self.latency = body.get("latency", self.latency)
                self._oauth.lifetime = body.get("token_lifetime", self._oauth.lifetime)
                return {}
            case "POST", "offline":
                self.offline[body["token"]] = Phone()
                return {}
            case "POST", "online":
                return {"shown": self.offline.pop(body["token"]).shown()}
            case "POST", "revoke":
                self._oauth.revoke()
                return {}
            case "POST", "reset":
                self._log.reset()
                self._counters.reset()
                self.offline.clear()
                self._do("POST", "settings", "", {"latency": 0.0, "token_lifetime": DEFAULT_LIFETIME_SECONDS})
                return self._do("DELETE", "faults", "", None)
            case _:
                return None

    def _add(self, provider: str, kind: str, **options: Any) -> int:
        if provider not in self.books:
            raise UnknownFaultError(f"there is no provider {provider!r}; there are: {', '.join(self.books)}")
        return self.books[provider].add(kind, **options)


def _refusal(status: int, sentence: str) -> Answer:
    return json_answer("control", status, {"error": sentence})
