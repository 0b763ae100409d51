"""The push services: one file each, and one line in this table."""

from collections.abc import Callable

from settings import Settings
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.providers import apns, fcm, webpush
from tasks.notifications.providers.base import Provider

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
