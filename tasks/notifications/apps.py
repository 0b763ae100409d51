"""The push apps: each one's credentials, Android style, privacy and templates, read from PUSH_APPS_FILE and checked at start.

The variables for a single app are the app `default`; a file with others leaves them as they are.
"""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from settings import ConfigurationError, Settings
from tasks.notifications.devices import APP_NAME, DEFAULT_APP
from tasks.notifications.notification import NotificationType
from tasks.notifications.templates import ANDROID, FIELDS, ProviderName, faults, merge

# Of one type and provider: with one for ALL and the longest title there is room for a body.
MOST_TEMPLATE_BYTES = 700
NOTHING: Mapping[str, Any] = MappingProxyType({})

# The settings that credentials are taken from, and the table and key of an app that stand for each.
CREDENTIALS: dict[str, tuple[str, str]] = {
    "google_application_credentials": ("fcm", "service_account"),
    **{f"apns_{key}": ("apns", key) for key in ("key_file", "key_id", "team_id", "topic", "environment")},
    **{f"vapid_{key}": ("webpush", key) for key in ("key_file", "subject")},
}


class Section(BaseModel):
    """A table of the file, in which an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FcmSection(Section):
    """`[APP.fcm]`."""

    service_account: Path
    channel_id: str | None = None
    """Android's notification channel; a template may name another by type."""
    silent_channel_id: str | None = None
    """The channel for recipients who want no sound: from Android 8 on the channel decides."""


class ApnsSection(Section):
    """`[APP.apns]`."""

    key_file: Path
    key_id: str
    team_id: str
    topic: str
    environment: Literal["production", "sandbox"] = "production"
    """Of devices that name none."""


class WebPushSection(Section):
    """`[APP.webpush]`."""

    key_file: Path
    subject: str


class App(Section):
    """One app: a table of the file, or `default` as the variables define it."""

    name: str = DEFAULT_APP
    fcm: FcmSection | None = None
    apns: ApnsSection | None = None
    webpush: WebPushSection | None = None
    android: Literal["data", "notification"] = "notification"
    """`data`: the app's own code shows a push; `notification`: Android does, and collapses what comes while it is offline."""
    content: Literal["full", "sender", "none"] = "full"
    """What the lock screen and the provider get to see: title and body, the title alone, or neither."""
    hidden: str = "New message"
    """Stands in the place of what is not shown."""
    withdraw: frozenset[ProviderName] = frozenset()
    """The providers whose devices are told what was read elsewhere or deleted."""
    templates: dict[Literal["ALL", NotificationType], dict[ProviderName, dict[str, Any]]] = {}

    def template(self, notification_type: str, provider: str) -> Mapping[str, Any]:
        """Return what the app adds to a provider's messages of a type; empty for most."""
        return self._merged.get((notification_type, provider), NOTHING)

    @cached_property
    def _merged(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The templates of each type over those of ALL, merged once."""
        everything = self.templates.get("ALL", {})
        return {
            (name, provider): merge(merge({}, everything.get(provider, {})), self.templates.get(name, {}).get(provider, {}))
            for name in get_args(NotificationType)
            for provider in FIELDS
        }

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name, by_provider in self.templates.items():
            for provider, table in by_provider.items():
                fields = dict(FIELDS[provider])
                if self.android == "data" and provider == "fcm":
                    # Any of these makes Google collapse the message.
                    del fields["notification"]
                    fields["android"] = {key: field for key, field in ANDROID.items() if key != "notification"}
                where = f"{self.name}.templates.{name}.{provider}"
                for fault in faults(table, fields, where):
                    raise ValueError(fault)
                if len(orjson.dumps(table)) > MOST_TEMPLATE_BYTES:
                    raise ValueError(
                        f"{where} has more than {MOST_TEMPLATE_BYTES} bytes, which leaves too little of 4096 to a push"
                    )
        return self

    @property
    def providers(self) -> list[str]:
        """The providers that the file gives it credentials for."""
        return [name for name in dict(CREDENTIALS.values()) if getattr(self, name)]


def fingerprint(*words: str) -> str:
    """Return eight hex digits that stand for these words."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


DEFAULT = App()
"""As the variables define it, or with everything as it was."""


def push_apps(settings: Settings) -> dict[str, tuple[App, Settings]]:
    """Return each app with the settings that its providers are made from. Raise ConfigurationError naming file and key."""
    path, apps = settings.push_apps_file, {}
    tables = _read(path) if path else {}
    variables = [name.upper() for name in CREDENTIALS if name in settings.model_fields_set and getattr(settings, name)]
    if variables and DEFAULT_APP in tables:
        raise ConfigurationError(
            f"{variables[0]} is set, and PUSH_APPS_FILE ({path}) has the app {DEFAULT_APP} too; keep one of them"
        )
    if variables or path is None:
        apps[DEFAULT_APP] = DEFAULT, settings
    for name, table in tables.items():
        with told_by_key(settings, name):
            if not APP_NAME.fullmatch(name) or not isinstance(table, dict):
                raise ConfigurationError(f"{name} is no app; expected a table with a name of up to 24 of a-z, 0-9, _ and -")
            app = App(**table | {"name": name})
            apps[name] = app, Settings(**settings.model_dump() | _credentials(app))
    return apps


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"PUSH_APPS_FILE names an unusable file: {path}: {error}") from None


def _credentials(app: App) -> dict[str, Any]:
    """Return the settings that the app's tables stand for, and the defaults of those that it does not have."""
    return {
        setting: getattr(getattr(app, provider), key, Settings.model_fields[setting].default)
        for setting, (provider, key) in CREDENTIALS.items()
    }


@contextmanager
def told_by_key(settings: Settings, app: str) -> Iterator[None]:
    """Say what is wrong with an app in the words of the file: the path, the table and the key instead of the variable."""
    try:
        yield
    except (ConfigurationError, ValidationError) as error:
        path = settings.push_apps_file
        if path is None or app not in _read(path):
            raise
        said = _sentence(app, error) if isinstance(error, ValidationError) else str(error)
        for setting, (provider, key) in CREDENTIALS.items():
            said = said.replace(setting.upper(), f"{app}.{provider}.{key}")
        raise ConfigurationError(f"PUSH_APPS_FILE ({path}): {said if said.startswith(app) else f'{app}: {said}'}") from None


def _sentence(app: str, error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])
    where = ".".join(map(str, (app, *first["loc"]))) if first["loc"][0] not in CREDENTIALS else str(first["loc"][0]).upper()
    words = {"missing": "is not set", "extra_forbidden": "is no key that is known"}
    message = words.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{where} {message[0].lower()}{message[1:]}"
