"""The push services: one file each, and one line in this table. A provider translates; it never decides."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol

from settings import Settings
from tasks.notifications.devices import Device
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.payload import Push
from tasks.notifications.providers import apns, fcm, webpush


class Provider(Protocol):
    """One push service. `send` neither sleeps nor retries, touches no database and raises nothing for an answer."""

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


PROVIDERS: dict[str, Callable[[Settings], Provider | None]] = {
    "fcm": fcm.from_settings,
    "apns": apns.from_settings,
    "webpush": webpush.from_settings,
}


def configured_providers(settings: Settings) -> dict[str, Provider]:
    """Return the providers that the environment configures, by name.

    Raise ConfigurationError where one is half configured or its credentials are unusable.
    """
    made = ((name, make(settings)) for name, make in PROVIDERS.items())
    return {name: provider for name, provider in made if provider is not None}


def absent(name: str) -> Outcome:
    """Return the outcome for a device whose provider this worker lacks: it waits for one that could be configured."""
    if name in PROVIDERS:
        return Outcome(Kind.UNCONFIGURED, f"{name} is not configured on this worker")
    return Outcome(Kind.REFUSED, f"there is no provider {name!r}")
