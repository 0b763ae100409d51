"""The server: it routes a request by its path to a provider, and lets a fault answer or accepts and logs the message."""

import asyncio
import time
from typing import Protocol

from devstack.emulators.answers import Answer, Ending, Headers, Message, Provider, Request
from devstack.emulators.connections import Resets
from devstack.emulators.control import PREFIX as CONTROL_PREFIX
from devstack.emulators.control import Control
from devstack.emulators.counters import Counters
from devstack.emulators.log import FLUSH_SECONDS, Accepted, AcceptedLog

_NO_SUCH_PATH = Answer("not_found", 404, [], b"")
_GONE = Answer("gone", 0, [], b"", ending=Ending.RESET)
# The answer to a torn request promises this many bytes more than it has, so that no client takes it for whole.
_MISSING_BYTES = 64
# Long enough for the server to notice that the connection is gone before the handler ends and answers into it.
_RESET_SECONDS = 0.05


class Exchange(Protocol):
    """The part of an RSGI protocol object that answers a request."""

    async def __call__(self) -> bytes: ...

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None: ...


class Server:
    """The RSGI application. `routes` maps path prefixes to providers."""

    def __init__(self, routes: dict[str, Provider], control: Control, log: AcceptedLog, counters: Counters) -> None:
        self._routes = tuple(routes.items())
        self._control = control
        self._log = log
        self._counters = counters
        self._resets = Resets()
        self._late: set[asyncio.Future[None]] = set()
        self._in_a_hurry = False

    async def __call__(self, request: Request, exchange: Exchange) -> None:
        path = request.path
        for prefix, provider in self._routes:
            if path.startswith(prefix):
                await self._serve(provider, request, exchange)
                return
        body = await exchange()
        answer = self._control.answer(request, body) if path.startswith(CONTROL_PREFIX) else _NO_SUCH_PATH
        exchange.response_bytes(answer.status, answer.headers, answer.body)

    def hurry(self) -> None:
        """Give every late answer at once from now on, for the HTTP server stops only when all are given."""
        self._in_a_hurry = True
        for late in self._late:
            _wake(late)

    async def keep_flushing(self) -> None:
        """Write the log out a few times per second, for as long as the emulator runs."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._log.flush()

    async def _serve(self, provider: Provider, request: Request, exchange: Exchange) -> None:
        self._counters.begin(provider.name, time.time())
        outcome = "broken"
        try:
            received = provider.receive(request, await exchange())
            answer = await self._verdict(provider, received, request.client) if isinstance(received, Message) else received
            outcome = answer.outcome
        finally:
            # Before the answer goes out, so that a client that has it finds it counted.
            self._counters.end(provider.name, outcome)
        await self._send(answer, request, exchange)

    async def _verdict(self, provider: Provider, message: Message, connection: str) -> Answer:
        book = self._control.books[provider.name]
        rule = book.match(message.token) if book.rules else None
        latency = self._control.latency + (rule.latency if rule else 0.0)
        if latency and not self._in_a_hurry:
            await self._be_late(latency)
        # A request that was read before its connection was reset is not accepted: a server that is down accepts nothing.
        if connection in self._resets:
            return _GONE
        answer = rule.answer if rule and rule.answer.outcome != "accepted" else provider.accepted(message)
        if answer.accepts and provider.logged and not message.dry_run:
            now, torn = round(time.time(), 3), answer.ending is not Ending.WHOLE
            named = message.notification_id, message.collapse, message.name
            accepted = Accepted(now, provider.name, message.token, *named, connection, message.digest, torn, latency)
            self._log.append(accepted)
            if provider.name == "fcm" and (phone := self._control.offline.get(message.token)):
                phone.keep(message.content)
        return answer

    async def _be_late(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, late)
        self._late.add(late)
        try:
            await late
        finally:
            timer.cancel()
            self._late.discard(late)

    async def _send(self, answer: Answer, request: Request, exchange: Exchange) -> None:
        if answer.ending is Ending.RESET:
            if self._resets.reset(request.client):
                self._counters.resets.append((request.client, time.time()))
            await asyncio.sleep(_RESET_SECONDS)
            return
        headers = answer.headers
        if answer.ending is Ending.TORN:
            promised = str(len(answer.body) + _MISSING_BYTES)
            # Without "close" an HTTP/1.1 client would wait for the missing bytes until the connection idles out.
            headers = [*headers, ("content-length", promised), ("connection", "close")]
        exchange.response_bytes(answer.status, headers, answer.body)


def _wake(late: "asyncio.Future[None]") -> None:
    if not late.done():
        late.set_result(None)
