"""The network between two hosts: a TCP proxy on loopback that can be cut, filled with silence, or slowed down."""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Any, Self

from tests.chaos.unanswered import Cut

CHUNK = 65_536
DELAY_SECONDS = 0.2


class Mode(Enum):
    """What the network does with what is sent through it."""

    OPEN = "open"
    CUT = "cut"
    """Connections are reset, new ones refused."""
    SILENT = "silent"
    """Connections are taken and stay open, and nothing passes: half-open."""
    MUTE = "mute"
    """Requests pass, answers do not."""
    SLOW = "slow"
    """Everything passes DELAY_SECONDS later."""


# In these, answers do not pass.
CLOSED = {Mode.CUT, Mode.SILENT, Mode.MUTE}


class Proxy:
    """A listener on a free loopback port that forwards to another one; `mode` may be changed at any time."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.cuts: list[Cut] = []
        """The connections on which answers were held back or lost, by their address at the target."""
        self.served: set[str] = set()
        """All that there ever were, by the same."""
        self.hindered = 0
        """How many connections did not find it open, then or later."""
        self._closed_at = 0.0
        self._open_to: set[str] = set()
        self._mode = Mode.OPEN
        self._may_pass = asyncio.Event()
        self._may_answer = asyncio.Event()
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {target}", daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many there are just now."""
        return len(self._open_to)

    def set(self, mode: Mode) -> None:
        """Change what the network does, for the connections that are there too."""
        self._run(self._set(mode))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        future.result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self._pass_on()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._may_pass.set()
        self._may_answer.set()
        self._reset()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await task

    async def _set(self, mode: Mode) -> None:
        was, self._mode = self._mode, mode
        if was is Mode.OPEN and mode is not Mode.OPEN:
            self.hindered += len(self._open_to)
        if was not in CLOSED:
            self._closed_at = time.time()
        if was in CLOSED or mode in CLOSED:
            self._note_cuts(self._open_to)
        if mode is Mode.CUT and self._server is not None:
            self._server.close()
            self._server = None
            self._reset()
        elif was is Mode.CUT and mode is not Mode.CUT:
            await self._open()
        # What was held back for longer than any client waits is of no use to anyone: both ends begin anew.
        if was in {Mode.SILENT, Mode.MUTE} and mode is Mode.OPEN:
            self._reset()
        self._pass_on()

    def _note_cuts(self, addresses: Iterable[str]) -> None:
        now = time.time()
        self.cuts += [Cut(address, self._closed_at, now) for address in addresses]

    def _pass_on(self) -> None:
        for event, closed in ((self._may_pass, {Mode.SILENT}), (self._may_answer, {Mode.SILENT, Mode.MUTE})):
            (event.clear if self._mode in closed else event.set)()

    def _reset(self) -> None:
        for writer in list(self._connections):
            if writer.transport.is_closing():
                continue
            # Without lingering the kernel sends RST in place of FIN.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with suppress(OSError):
            try:
                behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self.target)
                self._connections.add(behind_writer)
                address = "{}:{}".format(*behind_writer.get_extra_info("sockname"))
                self._open_to.add(address)
                self.served.add(address)
                self.hindered += self._mode is not Mode.OPEN
                try:
                    await asyncio.gather(
                        self._forward(reader, behind_writer, self._may_pass),
                        self._forward(behind_reader, writer, self._may_answer),
                    )
                finally:
                    self._connections.discard(behind_writer)
                    self._open_to.discard(address)
                    if self._mode in CLOSED:
                        self._note_cuts([address])
                    behind_writer.transport.abort()
            finally:
                self._connections.discard(writer)
                writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may_pass: asyncio.Event) -> None:
        while chunk := await reader.read(CHUNK):
            await may_pass.wait()
            if self._mode is Mode.SLOW:
                await asyncio.sleep(DELAY_SECONDS)
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
