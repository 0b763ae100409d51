"""Coalesce nudges: requests that come at once wait for one message together."""

import asyncio
from collections.abc import Awaitable, Callable

WINDOW_SECONDS = 0.05


class Nudges:
    """The nudges of one job: the first is sent at once, those that follow within WINDOW_SECONDS are sent as one at its end.

    A request is answered after its message was sent: if this process dies, its clients see that, and no answer was untrue.
    """

    def __init__(self, publish: Callable[[], Awaitable[list[str]]]) -> None:
        self._publish = publish
        self._next: asyncio.Task[list[str]] | None = None
        self._quiet_from = 0.0

    async def nudge(self) -> tuple[list[str], bool]:
        """Return the task of the message that this nudge is in, and whether another made it. Raise what publishing raises."""
        joined = self._next is not None
        if self._next is None:
            self._next = asyncio.create_task(self._send())
        return await asyncio.shield(self._next), joined

    async def _send(self) -> list[str]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0, self._quiet_from - loop.time()))
        self._quiet_from = loop.time() + WINDOW_SECONDS
        # Whoever comes from here on may have committed after this message was taken, and is in the next one.
        self._next = None
        return await self._publish()
