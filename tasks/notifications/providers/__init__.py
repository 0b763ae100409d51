"""The push services: one file each, and one line in this table. A provider translates; it never decides."""

from collections.abc import Callable
from typing import Any, Protocol

from settings import Settings
from tasks.notifications.apps import App, push_apps
from tasks.notifications.devices import Device, lane_of, of_lane
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.payload import Push
from tasks.notifications.providers.apns import Apns
from tasks.notifications.providers.fcm import Fcm
from tasks.notifications.providers.webpush import WebPush


class Provider(Protocol):
    """One push service. `send` neither sleeps nor retries, touches no database and raises nothing for an answer."""

    app: App
    identity: str
    """A short hash of whom it sends as: a token may be foreign to one project, topic or key and not to the next."""

    def prepare(self, push: Push) -> Any:
        """Return the push in the provider's shape, trimmed to its limit: made once for all devices of a row."""

    def prepare_withdrawal(self, push: Push) -> Any:
        """Return a push in the provider's shape that shows nothing: it sets the badge, and names what is to go."""

    async def send(self, prepared: Any, device: Device, *, dry_run: bool = False) -> Outcome:
        """Send to one device and return what the answer means. `dry_run` has the provider validate without delivering."""

    def show(self, prepared: Any) -> dict[str, Any]:
        """Return what `send` would send, as people read it: without the device's address and our credentials."""

    async def warm(self) -> None:
        """Connect, and fetch what token a first message would wait for, where it is known to whom. Raise nothing."""

    async def close(self) -> None:
        """Close the connections."""


PROVIDERS: dict[str, Callable[[Settings, App, Any], Provider]] = {"fcm": Fcm, "apns": Apns, "webpush": WebPush}
"""Each is made from the settings, an app and the app's table of credentials."""


def configured_providers(settings: Settings) -> dict[str, Provider]:
    """Return the providers of every app, by lane.

    Raise ConfigurationError where one is half configured or its credentials are unusable.
    """
    return {
        lane_of(name, app.name): make(settings, app, section)
        for app in push_apps(settings).values()
        for name, make in PROVIDERS.items()
        if (section := getattr(app, name))
    }


def absent(lane: str) -> Outcome:
    """Return the outcome for a device whose provider this worker lacks: it waits for one that could be configured."""
    name = of_lane(lane)["provider"]
    if name in PROVIDERS:
        return Outcome(Kind.UNCONFIGURED, f"{lane} is not configured on this worker")
    return Outcome(Kind.REFUSED, f"there is no provider {name!r}")
