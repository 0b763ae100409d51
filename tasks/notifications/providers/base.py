"""The interface of a provider: it shapes a push, sends it to one device and translates the answer. It never decides."""

from typing import Any, ClassVar, Literal, Protocol

from tasks.notifications.devices import Device
from tasks.notifications.outcome import Outcome
from tasks.notifications.payload import Push


class Provider(Protocol):
    """One push service. `send` neither sleeps nor retries, touches no database and raises nothing for an answer."""

    name: ClassVar[str]
    channel: ClassVar[Literal["mobile", "desktop"]]
    """Which of the recipient's switches rules it: mobile_notifications or desktop_notifications."""

    def prepare(self, push: Push) -> Any:
        """Return the push in the provider's shape, trimmed to its limit: made once for all devices of a row."""
        ...

    async def send(self, prepared: Any, device: Device, *, dry_run: bool = False) -> Outcome:
        """Send to one device and return what the answer means. `dry_run` has the provider validate without delivering."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
