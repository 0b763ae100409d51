"""The push services: one file each, and one line in this table."""

from collections.abc import Callable

from settings import Settings
from tasks.notifications.providers.base import Provider
from tasks.notifications.providers.fcm import Fcm

PROVIDERS: dict[str, Callable[[Settings], Provider]] = {
    "fcm": Fcm,
}


def configured_providers(settings: Settings) -> dict[str, Provider]:
    """Return the providers that the environment configures, by name. Raise ConfigurationError where one is half set."""
    return {name: make(settings) for name, make in PROVIDERS.items()}
